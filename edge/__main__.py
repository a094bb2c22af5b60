"""`edge` and `python -m edge`: the command line, from its first module on."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs `edge.cli.main`, and ends like it where Ctrl-C comes while that is imported, or a second time at its end."""
    try:
        from edge.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("edge: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
