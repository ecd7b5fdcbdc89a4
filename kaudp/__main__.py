"""`python -m kaudp`: the command line."""

import sys

from kaudp.cli import main

sys.exit(main())
