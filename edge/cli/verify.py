"""`edge verify`: one person or two?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge.cli import options
from edge.cli.verb import Verb


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_threshold(parser)
    parser.add_argument("pictures", nargs=2, type=Path, metavar="PICTURE", help="two pictures of a face")
    parser.add_argument("--strict", action="store_true", help="refuse a picture with several faces")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from edge.verification import verify

    threshold = options.threshold_of(args)
    with options.open_analyzer(args) as analyzer:
        first, second = args.pictures
        found = verify(analyzer, first, second, threshold, strict=args.strict)
    for portrait in found.portraits:
        if portrait.faces > 1:
            print(f"edge verify: {portrait.words()}", file=sys.stderr)
    if args.json:
        faces = [portrait.faces for portrait in found.portraits]
        values = {"same": found.same, "similarity": found.similarity, "threshold": found.threshold, "faces": faces}
        print(json.dumps(values))
        return 0
    verdict, relation = ("the same person", "reaches") if found.same else ("not the same person", "is below")
    print(f"{verdict}: similarity {found.similarity:.3f} {relation} the threshold {found.threshold:.3f}")
    return 0


VERB = Verb(
    name="verify",
    summary="say whether two pictures show the same person",
    configure=configure,
    run=run,
    description=(
        "Compares the faces two pictures are about; where one shows several, standard error says how many and which\n"
        "was taken. Ends with 0 whether they are one person or two, and with 2 where a picture cannot be read, shows\n"
        "no face or, with --strict, more than one."
    ),
    example="edge verify --bundle arcedge.bundle passport.jpg door.jpg",
)
