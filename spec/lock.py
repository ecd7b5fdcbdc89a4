"""Lock the requirements of spec/kaudp.md, so that none is edited unseen by what cites it.

requirements.lock has a line for each requirement: its id, its keyword, a hash of its sentence.

    python spec/lock.py            write the lock; print what changed, and the lines that cite it
    python spec/lock.py --check    print the same and write nothing; exit code 1 if it differs

How requirements and citations are written is defined here too. Nothing of the library is imported.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CITING = ("kaudp", "tests", "fuzz", "spec")
SUFFIXES = (".py", ".json", ".md")
SHOWN_LINES = 8
HASH_DIGITS = 12

KEYWORD = re.compile(r"\b(?:MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b")
REQUIREMENT = re.compile(r"^\[(KA-[0-9.]+-[0-9]+)\] (.*?)(?=\n\n|\Z)", re.M | re.S)
HEADING = re.compile(r"#+ (\d+(?:\.\d+)?)\.? ")
# The section that tells what the keywords mean.
DEFINITION = re.compile(r"^### 1\.1 .*?(?=^#|\Z)", re.M | re.S)
# An id alone, "KA-<section>-1 to 3", "KA-<section>-1 to KA-<section>-3", or "KA-<section>-1, -2".
CITATION = re.compile(
    r"\b(KA-[0-9.]+-)([0-9]+)\b(?: to (?:KA-[0-9.]+-)?([0-9]+)\b|((?:, -[0-9]+\b)+))?"
)


class Requirement(NamedTuple):
    """One requirement, its sentence with single spaces."""

    identifier: str
    sentence: str

    @property
    def keywords(self) -> list[str]:
        return KEYWORD.findall(self.sentence)

    @property
    def state(self) -> str:
        """What the lock holds of it."""
        digest = sha256(self.sentence.encode()).hexdigest()
        return f"{' '.join(self.keywords)} {digest[:HASH_DIGITS]}"


def requirements(text: str) -> list[Requirement]:
    return [
        Requirement(identifier, " ".join(sentence.split()))
        for identifier, sentence in REQUIREMENT.findall(text)
    ]


def citations(text: str) -> Iterator[tuple[int, str]]:
    """Give (line, id) for each id that is cited, ranges spelled out."""
    for number, line in enumerate(text.splitlines(), 1):
        for stem, first, last, others in CITATION.findall(line):
            numbers = range(int(first), int(last or first) + 1)
            for cited in [*numbers, *re.findall("[0-9]+", others)]:
                yield number, f"{stem}{cited}"


def cited_files(root: Path, folders: Sequence[str] = CITING) -> Iterator[tuple[str, int, str]]:
    """Give (file, line, id) for each citation in some folders."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                for line, identifier in citations(path.read_text(encoding="utf-8")):
                    yield path.relative_to(root).as_posix(), line, identifier


def faults(text: str) -> list[str]:
    """Tell what is wrong with the text's own ids and keywords."""
    found = requirements(text)
    times = Counter(one.identifier for one in found)
    return [
        *(f"{one}: expected once, got {count} times" for one, count in times.items() if count > 1),
        *(
            f"{one.identifier}: expected one keyword, got {', '.join(one.keywords) or 'none'}"
            for one in found
            if len(one.keywords) != 1
        ),
        *_misplaced(text),
        *_keywords_without_id(text),
    ]


def _misplaced(text: str) -> Iterator[str]:
    section = ""
    for line in text.splitlines():
        if heading := HEADING.match(line):
            section = heading[1]
        if (named := re.match(r"\[KA-([0-9.]+)-(\d+)\]", line)) and named[1] != section:
            yield f"KA-{named[1]}-{named[2]}: expected in section {named[1]}, got {section}"


def _keywords_without_id(text: str) -> Iterator[str]:
    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    rest = DEFINITION.sub(blank, REQUIREMENT.sub(blank, text))
    for number, line in enumerate(rest.splitlines(), 1):
        for keyword in KEYWORD.findall(line):
            yield f"line {number}: {keyword} without an id: {line.strip()}"


def locked(text: str) -> str:
    """Give the lock that fits the text."""
    return "".join(f"{one.identifier} {one.state}\n" for one in requirements(text))


def report(text: str, lock: str, root: Path) -> Iterator[str]:
    """Tell each difference between the text and a lock, and who cites what differs."""
    old = dict(line.split(" ", 1) for line in lock.splitlines() if " " in line)
    new = {one.identifier: one for one in requirements(text)}
    for identifier in [*new, *(gone for gone in old if gone not in new)]:
        if identifier not in old:
            yield f"added {identifier}: {new[identifier].state}"
        elif identifier not in new:
            yield f"removed {identifier}: was {old[identifier]}"
        elif new[identifier].state != old[identifier]:
            yield f"edited {identifier}: was {old[identifier]}, is {new[identifier].state}"
        else:
            continue
        if identifier in new:
            yield f"    {new[identifier].sentence}"
        if identifier in old:
            yield from _who_cites(identifier, root)


def _who_cites(identifier: str, root: Path) -> Iterator[str]:
    lines: dict[str, list[int]] = {}
    for file, line, cited in cited_files(root):
        if cited == identifier:
            lines.setdefault(file, []).append(line)
    for file, numbers in lines.items():
        more = f" and {len(numbers) - SHOWN_LINES} more" if len(numbers) > SHOWN_LINES else ""
        yield f"    cited: {file}:{', '.join(map(str, numbers[:SHOWN_LINES]))}{more}"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description="Lock the requirements of spec/kaudp.md.")
    parser.add_argument("--check", action="store_true", help="fail if the lock differs")
    check = parser.parse_args(arguments).check
    text = (root / "spec" / "kaudp.md").read_text(encoding="utf-8")
    path = root / "spec" / "requirements.lock"
    if wrong := faults(text):
        print("spec/kaudp.md:", *wrong, sep="\n", file=sys.stderr)
        return 2
    lock = path.read_text(encoding="utf-8") if path.exists() else ""
    if lock == locked(text):
        return 0
    print(*report(text, lock, root), sep="\n")
    if check:
        print(f"{path.name} does not fit the text: look at what cites it, then python spec/lock.py")
        return 1
    path.write_text(locked(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
