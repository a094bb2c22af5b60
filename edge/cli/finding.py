"""`edge gallery find`: who in a gallery is most like the faces of pictures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.gallery import Gallery
    from edge.gallery.store import Hit


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="pictures with one face, or folders")
    options.add_bundle(parser)
    parser.add_argument("--top", type=options.positive, default=5, metavar="N", help="embeddings to name (default: 5)")
    parser.add_argument("--json", action="store_true", help="print a JSON line a picture")


def run(args: argparse.Namespace, gallery: Gallery) -> None:
    from tqdm import tqdm

    from edge.enrolment import Notice, look
    from edge.pictures import find_pictures, read_picture

    pictures = find_pictures(args.pictures)
    precision = gallery.variant_in(options.open_bundle(args)).precision
    found = 0
    with (
        options.open_analyzer(args, precision) as analyzer,
        tqdm(total=len(pictures), unit="picture", disable=None, leave=False) as bar,
    ):
        for path in pictures:
            try:
                shot = look(analyzer, read_picture(path), str(path))
            except InputError as error:
                print(f"  warning: {error}", file=sys.stderr)
                continue
            finally:
                bar.update()
            if isinstance(shot, Notice):
                print(f"  warning: {path}: {shot.text}", file=sys.stderr)
                continue
            found += 1
            _print(path, gallery.search(shot.vector[None], args.top)[0], as_json=args.json)
    if not found:
        raise InputError("no picture shows one face; see the warnings above")


def _print(path: Path, hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"name": hit.identity, "similarity": hit.similarity, "number": hit.number, "source": hit.source}
            for hit in hits
        ]
        print(json.dumps({"picture": str(path), "found": rows}))
        return
    print(path)
    for hit in hits:
        print(f"  {hit.similarity:6.3f}  {hit.identity}  ({hit.source})")
