"""What a verb of `edge` is. Every part of arcedge offers its own through the entry-point group `edge.verbs`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as every other mistake is said: ten lines of usage would hide it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see: {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """All arguments are known, or it is a mistake of this very command's: argparse would leave that to `edge`."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


@dataclass(frozen=True, slots=True)
class Verb:
    """A command of `edge`.

    summary: one line for `edge --help`. description and example: for `edge NAME --help`.
    configure: adds the arguments; must be light, it runs for `--help`. run: does the work, gives the exit code.
    requires: top-level modules that must be importable; extra: the extra of arcedge that installs them.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    description: str = ""
    example: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""

    def missing(self) -> str | None:
        """The first required module that is not installed."""
        return next((name for name in self.requires if find_spec(name) is None), None)
