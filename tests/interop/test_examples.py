"""interop/examples: they run as they are, against each other."""

import os
import subprocess
import sys
from pathlib import Path

import kaudp

EXAMPLES = Path(__file__).parents[2] / "interop" / "examples"


def test_a_plain_loop_plays_against_the_game_server() -> None:
    environment = {**os.environ, "KAUDP_KEY": kaudp.PresharedKey.generate().to_text()}
    server = subprocess.Popen(
        [sys.executable, EXAMPLES / "game_server.py", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split()[-1]
        player = subprocess.run(
            [sys.executable, EXAMPLES / "plain_loop.py", "127.0.0.1", port, "10"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert player.returncode == 0, player.stderr
        assert player.stdout.splitlines()[0] == "SessionUp"
        assert "score 10, UP" in player.stdout
        assert server.stdout.readline().startswith("here: ")
        assert server.stdout.readline().rstrip().endswith("score 10")
    finally:
        server.kill()
        server.communicate()
