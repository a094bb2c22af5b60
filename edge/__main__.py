"""`python -m edge`: the same as the command `edge`."""

from __future__ import annotations

import sys

from edge.cli.main import main

sys.exit(main())
