"""`edge embed`: embeddings of pictures as arrays."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge.cli import options
from edge.cli.verb import Verb
from edge.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="pictures, or folders walked in sorted order"
    )
    parser.add_argument(
        "--all-faces", action="store_true", help="every face of a picture, not only the one it is about"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .npz file to write")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from edge.embedding_files import embed_pictures
    from edge.pictures import find_pictures

    if not args.out.parent.is_dir():
        raise InputError(f"{args.out}: the folder {args.out.parent} does not exist")
    pictures = find_pictures(args.paths)
    with (
        options.open_analyzer(args) as analyzer,
        tqdm(total=len(pictures), unit="picture", disable=None, leave=False) as bar,
    ):
        table = embed_pictures(
            analyzer,
            pictures,
            all_faces=args.all_faces,
            progress=bar.update,
            unreadable=lambda message: print(f"edge embed: {message}", file=sys.stderr),
        )
    table.save(args.out)
    counts = {"pictures": len(pictures), "faces": int(table.found.sum()), "without_face": int((~table.found).sum())}
    if args.json:
        print(json.dumps({**counts, "out": str(args.out)}))
    else:
        print(f"{args.out}: {counts['faces']} faces of {len(pictures)} pictures, {counts['without_face']} without one")
    return 0


VERB = Verb(
    name="embed",
    summary="write the embeddings of pictures to a .npz file",
    configure=configure,
    run=run,
    description=(
        "Writes arrays path, box (x1 y1 x2 y2, pixels), landmarks (5x2), score, embedding (unit length) and found.\n"
        "A picture without a face, or that cannot be read, keeps its row, with found false and zeros."
    ),
    example="edge embed --bundle arcedge.bundle --precision int8 photos/ --out photos.npz",
)
