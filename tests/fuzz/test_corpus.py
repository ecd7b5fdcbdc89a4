"""The fuzz targets without a fuzzer: the corpus as it is, altered, and random bytes.

A failing input is shown in hex with the command that plays it again.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from fuzz import make_corpus
from fuzz.judge import judge
from fuzz.targets import TARGETS
from kaudp.wire.grammar import FrameType

CORPUS = make_corpus.CORPUS
INPUTS = sorted(path for name in TARGETS for path in (CORPUS / name).iterdir())
DRAWN = {"parser": 3_000, "endpoint": 500}


def play(name: str, data: bytes) -> None:
    try:
        TARGETS[name](data)
    except Exception as error:
        command = f"python -m fuzz.targets {name} hex:{data.hex()}"
        pytest.fail(f"{type(error).__name__}: {error}\nreplay with: {command}")


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_invariant_holds_over_the_corpus(path: Path) -> None:
    play(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_invariant_holds_over_random_bytes(name: str) -> None:
    draw = Random(f"random bytes for {name}")
    for _ in range(DRAWN[name]):
        play(name, draw.randbytes(draw.randrange(300)))


@pytest.mark.parametrize("name", TARGETS)
def test_every_invariant_holds_over_the_corpus_altered(name: str) -> None:
    seeds = [path.read_bytes() for path in INPUTS if path.parent.name == name]
    for data in islice(altered(seeds, Random(f"alterations for {name}")), DRAWN[name]):
        play(name, data)


def altered(seeds: list[bytes], draw: Random) -> Iterator[bytes]:
    """Change bytes, cut, and splice two seeds, as a fuzzer does."""
    while True:
        one, other = bytearray(draw.choice(seeds)), draw.choice(seeds)
        for _ in range(draw.randrange(4)):
            at = draw.randrange(len(one) + 1)
            one[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        yield bytes(one[: draw.randrange(len(one) + 1)] + other[draw.randrange(len(other) + 1) :])


def test_the_corpus_is_what_the_vectors_make() -> None:
    made = dict(make_corpus.files())
    assert {name: (CORPUS / name).read_bytes() for name in made} == made
    size = sum(path.stat().st_size for path in INPUTS)
    assert size < 1_000_000


def test_the_judge_agrees_with_the_vectors_on_every_body() -> None:
    tests = json.loads((make_corpus.VECTORS / "frames.json").read_text())["tests"]
    judged = 0
    for test in tests:
        if test["result"] == "valid" or test["id"].startswith("option-"):
            frame_type = FrameType(test["header"]["type"])
            verdict = judge(bytes.fromhex(test["plaintext"]))[f"{frame_type.name.lower()}_body"]
            assert verdict["result"] == test["result"], test["id"]
            assert verdict.get("reason") == test["reason"], test["id"]
            judged += 1
    assert judged > 50


def test_the_judge_agrees_with_the_vectors_on_every_carried_frame() -> None:
    tests = json.loads((make_corpus.VECTORS / "carried.json").read_text())["tests"]
    judged = 0
    for test in tests:
        if test["kind"] != "frame" or test["carrier"] == "udp":
            continue
        verdict = judge(bytes.fromhex(test["frame"]))["carried"]
        if verdict["result"] == "invalid" or test["result"] == "valid":
            assert verdict["result"] == test["result"], test["id"]
            assert verdict.get("reason") == test["reason"], test["id"]
            judged += 1
        else:  # only the session can tell
            assert test["reason"] != "not_kaudp", test["id"]
    assert judged > 150
