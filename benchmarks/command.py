"""What every `python -m benchmarks.…` shares with `edge`: a user's mistake is one line and exit code 2."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from edge.errors import EdgeError, InputError

P = ParamSpec("P")


def command(name: str) -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Makes a `main` end as `edge` does: it gives its exit code, 0 where it had none. A bug keeps its traceback.

    name: what its one line begins with.
    """

    def decorate(main: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            words = next((given for given in (*args, *kwargs.values()) if given is not None), sys.argv[1:])
            try:
                return main(*args, **kwargs) or 0
            except EdgeError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return error.exit_code
            except OSError as error:
                if not _named_by_the_user(error, words):
                    raise
                print(f"{name}: {error.filename}: cannot be used ({error.strerror})", file=sys.stderr)
                return InputError.exit_code
            except KeyboardInterrupt:
                print(f"{name}: stopped", file=sys.stderr)
                return 130

        return run

    return decorate


def _named_by_the_user(error: OSError, words: object) -> bool:
    """Whether the file is one of the command line, or lies in a folder that is: another one is a mistake of ours."""
    if not isinstance(error.filename, str) or not isinstance(words, (list, tuple)):
        return False
    file = Path(error.filename).absolute()
    given = {Path(word.rpartition("=")[2]).absolute() for word in words if isinstance(word, str) and word}
    return bool(given & {file, *file.parents})
