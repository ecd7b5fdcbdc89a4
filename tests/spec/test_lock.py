"""spec/lock.py on a text of two sections. "@" stands for what an id begins with."""

import re
from pathlib import Path

import pytest

from spec import lock

TEXT = """# A protocol

### 1.1 Requirements

MUST and MAY are as in RFC 2119.

## 2. Frames

[@2-1] A frame MUST be
short.

[@2-2] A frame MUST NOT be empty.

### 2.1 Options

[@2.1-1] An option MAY be there; see @2-1.
"""


def real(text: str) -> str:
    return re.sub(r"@(?=\d)", "KA-", text)


def tree(root: Path, text: str = TEXT) -> Path:
    """Write the text, its lock, and one file of code that cites it."""
    files = {
        "spec/kaudp.md": text,
        "spec/requirements.lock": lock.locked(real(text)),
        "kaudp/frames.py": '"""Spec: @2-1."""\n\n# @2-1, -2: here too.\n',
    }
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(real(content))
    return root


def edit(root: Path, old: str, new: str) -> None:
    path = root / "spec" / "kaudp.md"
    assert real(old) in path.read_text()
    path.write_text(path.read_text().replace(real(old), real(new)))


@pytest.mark.parametrize(
    ("cited", "expected"),
    [
        ("@2-1.", "2-1"),
        ("@2-1 @2.1-12, @3-4:", "2-1 2.1-12 3-4"),
        ("@3.8-1 to @3.8-3", "3.8-1 3.8-2 3.8-3"),
        ("@3.8-2 to 4.", "3.8-2 3.8-3 3.8-4"),
        ("@8.2-1, -2, -5 and", "8.2-1 8.2-2 8.2-5"),
        ("@8.2-1, 2 - 3", "8.2-1"),
        ("section 8.2; @8.2", ""),
    ],
)
def test_ways_to_cite(cited: str, expected: str) -> None:
    found = [identifier for _, identifier in lock.citations(real(cited))]
    assert found == [f"KA-{number}" for number in expected.split()]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[@2-2]", "[@2-1]", "@2-1: expected once, got 2 times"),
        ("MAY be", "is", "@2.1-1: expected one keyword, got none"),
        ("MAY be", "MAY or MUST be", "@2.1-1: expected one keyword, got MAY, MUST"),
        ("[@2.1-1]", "[@2-3]", "@2-3: expected in section 2, got 2.1"),
        ("[@2-2] A", "A", "line 12: MUST NOT without an id: A frame MUST NOT be empty."),
        ("# A protocol", "It MAY", "line 1: MAY without an id: It MAY"),
        ("2. Frames", "2. Frames SHOULD", "line 7: SHOULD without an id: ## 2. Frames SHOULD"),
    ],
)
def test_a_fault_of_the_text_is_told_and_nothing_is_locked(
    old: str, new: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path)
    before = (root / "spec" / "requirements.lock").read_text()
    edit(root, old, new)
    assert lock.faults((root / "spec" / "kaudp.md").read_text()) == [real(fault)]
    for arguments in ([], ["--check"]):
        assert lock.main(arguments, root) == 2
        assert real(fault) in capsys.readouterr().err
    assert (root / "spec" / "requirements.lock").read_text() == before


def test_a_text_without_fault() -> None:
    assert lock.faults(real(TEXT)) == []


def test_a_lock_that_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path)
    edit(root, "MUST be\nshort.", "MUST\nbe short.")  # other line breaks
    edit(root, "## 2. Frames\n", "## 2. Frames\n\nThey are small.\n")  # what binds nobody
    assert lock.main(["--check"], root) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "short.",
            "long.",
            r"edited @2-1: was MUST (\w{12}), is MUST (?!\1)\w{12}\n"
            r"    A frame MUST be long\.\n"
            r"    cited: kaudp/frames\.py:1, 3\n"
            r"    cited: spec/kaudp\.md:9, 16\n",
        ),
        (
            "MUST NOT be",
            "MUST be",
            r"edited @2-2: was MUST NOT \w{12}, is MUST \w{12}\n    A frame MUST be empty\.\n"
            r"    cited: kaudp/frames\.py:3\n    cited: spec/kaudp\.md:12\n",
        ),
        (
            "[@2-2] A frame MUST NOT be empty.",
            "",
            r"removed @2-2: was MUST NOT \w{12}\n    cited: kaudp/frames\.py:3\n",
        ),
        (
            "### 2.1",
            "[@2-3] A frame SHOULD be one.\n\n### 2.1",
            r"added @2-3: SHOULD \w{12}\n    A frame SHOULD be one\.\n",
        ),
    ],
)
def test_what_changed_is_told_with_what_cites_it(
    old: str, new: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path)
    edit(root, old, new)
    stale = (root / "spec" / "requirements.lock").read_text()
    assert lock.main(["--check"], root) == 1
    checked = capsys.readouterr().out
    assert (root / "spec" / "requirements.lock").read_text() == stale
    assert lock.main([], root) == 0
    written = capsys.readouterr().out
    assert re.fullmatch(real(told), written)
    assert checked.startswith(written)
    assert lock.main(["--check"], root) == 0


def test_a_requirement_cited_often_shows_the_first_lines(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "kaudp" / "frames.py").write_text(real("# @2-2\n" * 10))
    edit(root, "empty", "full")
    text = (root / "spec" / "kaudp.md").read_text()
    told = list(lock.report(text, (root / "spec" / "requirements.lock").read_text(), root))
    assert "    cited: kaudp/frames.py:1, 2, 3, 4, 5, 6, 7, 8 and 2 more" in told


@pytest.mark.parametrize("spoil", ["", "<<<<<<< ours\n", "again"])
def test_a_lock_that_nobody_wrote_is_stale(spoil: str, tmp_path: Path) -> None:
    root = tree(tmp_path)
    path = root / "spec" / "requirements.lock"
    good = path.read_text()
    path.write_text({"": "", "again": good + good}.get(spoil, spoil + good))
    assert lock.main(["--check"], root) == 1
    assert lock.main([], root) == 0
    assert path.read_text() == good


def test_a_first_lock_is_written(tmp_path: Path) -> None:
    root = tree(tmp_path)
    path = root / "spec" / "requirements.lock"
    good = path.read_text()
    path.unlink()
    assert lock.main(["--check"], root) == 1
    assert lock.main([], root) == 0
    assert path.read_text() == good
