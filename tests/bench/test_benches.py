"""The benchmarks run; what they measure is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_quic_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = ["--rounds", "1", "--seconds", "0.3", "--json", str(out)]
    subprocess.run([sys.executable, HERE / "quic.py", *options], check=True, timeout=60)
    figures = json.loads(out.read_text())
    assert set(figures) == {"datagram", "ping"}
    for figure in figures.values():
        assert figure["aioquic_us"][0] > 0
        assert figure["with_kaudp_us"][0] > 0
