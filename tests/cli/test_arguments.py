"""What may be typed and what may not, for all commands."""

import subprocess

import pytest
from conftest import COMMAND, KEY, environment, one_line_error
