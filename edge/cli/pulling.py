"""`edge gallery pull`: a copy of a central gallery, for a machine that goes on when the centre is away."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from edge.cli import options
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.gallery import Key
    from edge.gallery.pull import Pulled

DESCRIPTION = (
    ". Only changes are fetched. All of them count at once, and only if their digest is the centre's: killed at any "
    "moment, the copy is what it was or what the centre is. A running edge run sees the new people without a restart. "
    "Kept crops stay at the centre."
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "centre", type=options.place, metavar="CENTRE", help="milvus:FILE.db or milvus:http://HOST:PORT"
    )
    parser.add_argument("gallery", type=Path, metavar="GALLERY", help="directory of the copy, which is made if missing")
    parser.add_argument(
        "--every",
        type=options.positive_float,
        metavar="SECONDS",
        help="go on: pull again and again until Ctrl-C, also when the centre is away for a while",
    )
    options.add_key(parser)


def run(args: argparse.Namespace, key: Key | None) -> int:
    from edge.gallery.place import MilvusPlace

    if not isinstance(args.centre, MilvusPlace):
        raise InputError(f"{args.centre}: a directory is no centre; give milvus:FILE.db or milvus:http://HOST:PORT")
    if args.every is None:
        print(_said(args.gallery, _pull(args, key)))
        return 0
    return _keep_pulling(args, key)


def _pull(args: argparse.Namespace, key: Key | None) -> Pulled:
    from tqdm import tqdm

    from edge.gallery.centre import MilvusCentre
    from edge.gallery.pull import pull

    with MilvusCentre(args.centre) as centre, tqdm(unit="record", disable=None, leave=False) as bar:
        return pull(centre, args.gallery, key, bar.update)


def _keep_pulling(args: argparse.Namespace, key: Key | None) -> int:
    """Until a signal. What passes, such as a centre that is away, is said when it begins and when it ends.

    Once a pull has worked, whatever a later one ends with may pass: a disk that is full, somebody who reads the copy.
    """
    from edge.errors import GalleryError
    from edge.gallery.store import StoreUnavailableError

    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    worked, trouble = False, None
    try:
        while not stopped.is_set():
            try:
                pulled = _pull(args, key)
                if trouble is not None:
                    again = "the centre is there" if trouble is StoreUnavailableError else "the copy can be changed"
                    print(f"edge gallery pull: {again} again", file=sys.stderr, flush=True)
                if pulled.after != pulled.before:
                    print(_said(args.gallery, pulled), flush=True)
                worked, trouble = True, None
            except GalleryError as error:
                if not worked and not isinstance(error, StoreUnavailableError):
                    raise
                if type(error) is not trouble:
                    print(f"edge gallery pull: {error}; going on with the last copy", file=sys.stderr, flush=True)
                trouble = type(error)
            stopped.wait(args.every)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _said(gallery: Path, pulled: Pulled) -> str:
    if pulled.before == pulled.after:
        return f"{gallery}: up to date, version {pulled.after}"
    return f"{gallery}: version {pulled.before} is now {pulled.after}; {pulled.records} records fetched"
