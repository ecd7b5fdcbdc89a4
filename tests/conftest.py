"""Whole runs judge whether tests that ran trace every requirement."""

import os
import tomllib
from pathlib import Path

import pytest

from tests.spec.tracing import Tracer

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    text = (HERE.parent / "spec" / "kaudp.md").read_text(encoding="utf-8")
    exceptions = tomllib.loads((HERE / "spec" / "exceptions.toml").read_text(encoding="utf-8"))
    require_all = os.environ.get("KAUDP_REQUIRE_ALL") == "1"
    tracer = Tracer(text, exceptions["tests"], HERE, require_all=require_all)
    config.pluginmanager.register(tracer, "requirements")
