"""`edge`: finds its verbs, parses, runs one, and turns a user's mistake into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from edge import __version__
from edge.cli.verb import Parser, Verb
from edge.errors import EdgeError, MissingExtraError

GROUP = "edge.verbs"


def find_verbs(name: str | None = None) -> list[Verb]:
    """Verbs of every installed part, in the order of the work: train, export, …, then the rest by name.

    name: that verb alone where there is one so called, so that a camera does not load what trains and exports.
    """
    if name is not None and (verb := _own_verb(name)) is not None:
        return [verb]
    from importlib.metadata import entry_points

    order = [
        "train",
        "calibrate",
        "export",
        "parity",
        "triton",
        "bundle",
        "rollout",
        "weights",
        "enroll",
        "gallery",
        "index",
        "run",
        "embed",
        "verify",
        "bench",
        "doctor",
    ]
    verbs = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in verbs:
        return [verbs[name].load()]
    names = [name for name in order if name in verbs] + sorted(set(verbs) - set(order))
    return [verbs[name].load() for name in names]


def _own_verb(name: str) -> Verb | None:
    """A verb of the runtime, each of which stands in a module of its name: reading entry points takes 30 ms of CPU."""
    if not name.isidentifier() or find_spec(f"edge.cli.{name}") is None:
        return None
    verb = getattr(import_module(f"edge.cli.{name}"), "VERB", None)
    return verb if isinstance(verb, Verb) else None


class _Wide(argparse.HelpFormatter):
    """Room for the longest command beside its summary: argparse forgets that commands are indented once more."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 14


def build_parser(verbs: Sequence[Verb]) -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="edge",
        description="From a fine-tuned face network to proven engines and a camera that knows who is there.",
        epilog="Each command has --help with an example.",
        formatter_class=_Wide,
    )
    parser.add_argument("--version", action="version", version=f"arcedge {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    for verb in verbs:
        command = commands.add_parser(
            verb.name,
            help=verb.summary,
            description=verb.description or verb.summary,
            epilog=f"example:\n{_indented(verb.example)}" if verb.example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.configure(command)
        command.set_defaults(_verb=verb)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `edge`; gives the exit code: 0 done, 2 a user's mistake, others as the verb says."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        parser = build_parser(find_verbs(*words[:1]))
        parsed = parser.parse_args(words)
    except KeyboardInterrupt:
        # Finding the verbs imports what trains and exports: half a second on a small box.
        print("edge: stopped", file=sys.stderr)
        return 130
    verb: Verb | None = getattr(parsed, "_verb", None)
    if verb is None:
        parser.print_help()
        return 0
    try:
        if missing := verb.missing():
            raise MissingExtraError(missing, verb.extra)
        code = verb.run(parsed)
        sys.stdout.flush()
    except EdgeError as error:
        print(f"edge {verb.name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"edge {verb.name}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter's last flush must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PermissionError as error:
        # Whatever lies in a folder of somebody else, whom a container or a unit does not run as.
        if error.filename is None:
            raise
        print(f"edge {verb.name}: {error.filename}: this user may not open it ({error.strerror})", file=sys.stderr)
        return 2
    except OSError as error:
        # Results may be sent to a file on a full disk; everything else that is the system's word is a bug of ours.
        if error.errno != errno.ENOSPC:
            raise
        print(f"edge {verb.name}: the disk is full ({error.filename or 'standard output'}); make room", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return code


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())
