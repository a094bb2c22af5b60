"""`python -m benchmarks.embedder_card`: measures a distilled embedder's verification anew, and puts it into its card.

For when what finds the faces has changed: the card keeps all that training left in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.command import command
from benchmarks.detector_card import machine_of_figures, tell
from edge.errors import InputError
from edge.weights import find_weights
from edge.weights.cards import CARD_SUFFIX, Figure
from training.card import versions
from training.checkpoint import load_embedder
from training.distill.measure import read_verification_set, verification_figures
from training.distill.teacher import BothWays, load_teacher
from training.faces import Finder
from training.shipping import write_shipped_card

ENTRIES = ("role", "licence", "data", "limits")


def configure_card(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("weights", metavar="FILE_OR_NAME", help="of `edge train distill`, with the card beside")
    add("--teacher", type=Path, required=True, metavar="PT", help="foamliu's MobileFaceNet")
    add("--pairs", type=Path, required=True, metavar="FILE", help="LFW-style pairs")
    add("--images", type=Path, required=True, metavar="DIR", help="the pictures of those pairs")
    add(
        "--finder",
        action="append",
        required=True,
        metavar="FINDER",
        help="DETECTOR, or DETECTOR+LANDMARKER, by files or names; repeatable, the targets are of the first",
    )


def run_card(args: argparse.Namespace) -> int:
    """Measures, writes the card, and prints the figures."""
    weights = find_weights(args.weights, "embedder")
    path = weights.with_name(weights.stem + CARD_SUFFIX)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        kept = [Figure(**figure) for figure in card["figures"] if " through " not in figure.get("on", "")]
        entries, called = {key: card[key] for key in ENTRIES}, card["teacher"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no card of edge train distill ({error})") from error
    torch.set_num_threads(1)
    student, _ = load_embedder(weights)
    finders = [Finder.parse(text) for text in args.finder]
    name = args.pairs.parent.name.upper()
    sets = [read_verification_set(args.pairs, args.images, one.open(), name, one.stem) for one in finders]
    figures, through = verification_figures(student, BothWays(load_teacher(args.teacher)), called, sets)
    more = {
        **card,
        "through": through,
        "measured_on": machine_of_figures(),
        "measured_with": versions(),
    }
    write_shipped_card(weights, figures=[*kept, *figures], more=more, **entries)
    tell(figures, path)
    return 0


@command("embedder_card")
def main() -> int:
    """`python -m benchmarks.embedder_card`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedder_card", description=__doc__)
    configure_card(parser)
    return run_card(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
