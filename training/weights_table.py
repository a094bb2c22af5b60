"""`python -m training.weights_table`: writes `model_weights/README.md` from the cards; `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.errors import EdgeError, InputError
from edge.weights import FOLDER
from edge.weights.cards import Card, Figure, read_cards

HEAD = """\
# The weights that ship with arcedge

Generated from the cards beside the weights by `python -m training.weights_table`; edit the cards, not this page.
Intervals are 95 %. What the entries of a card mean, and where to get weights of other parties, stands in
[docs/weights.md](../docs/weights.md).
"""


def render(cards: Sequence[Card]) -> str:
    """The page: one row a model, then the figures and limits of each. Raises InputError for a card without its file."""
    for card in cards:
        if fault := card.fault():
            raise InputError(f"{card.path.name}: {card.file} {fault}; write the card again with its weights")
    total = sum(card.size for card in cards)
    rows = ["| weights | role | size | parameters | sha256 (first 16) | licence |", "|---|---|--:|--:|---|---|"]
    rows += [
        f"| [{card.name}](#{_anchor(card.name)}) | {card.role} | {card.size / 1e6:.2f} MB | {card.parameters:,} "
        f"| `{card.sha256[:16]}` | {_cell(card.licence)} |"
        for card in cards
    ]
    overview = "\n".join(rows) + f"\n\n{len(cards)} files, {total / 1e6:.2f} MB in all.\n"
    return "\n".join([HEAD, overview, *(_section(card) for card in cards)])


def _section(card: Card) -> str:
    lines = [f"## {card.name}", "", f"Learned from: {card.data}", ""]
    if card.figures:
        lines += ["| measured | value | 95 % interval | count | on | target |", "|---|--:|--:|--:|---|---|"]
        lines += [_row(figure) for figure in card.figures]
    else:
        lines.append("Nothing was measured.")
    lines += ["", "Limits:", "", *(f"- {limit}" for limit in card.limits or ["none stated"])]
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    interval = "" if figure.low is None or figure.high is None else f"{_number(figure.low)}–{_number(figure.high)}"
    verdict = {True: ": met", False: ": **missed**", None: ""}[figure.met]
    value = "not measured" if figure.value is None else f"{_number(figure.value)} {figure.unit}".strip()
    count = "" if figure.count is None else f"{figure.count:,}"
    target = _cell(figure.target + verdict) if figure.target else ""
    return f"| {_cell(figure.what)} | {value} | {interval} | {count} | {_cell(figure.on)} | {target} |"


def _number(value: float) -> str:
    """Four significant digits at least, no exponent, nothing rounded away above the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(name: str) -> str:
    return name.lower().replace(".", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks the page; 0 done, 1 where `--check` finds it out of date, 2 for an unfit card."""
    parser = argparse.ArgumentParser(prog="python -m training.weights_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where the page is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR", help="of cards and weights")
    args = parser.parse_args(arguments)
    page = args.folder / "README.md"
    try:
        text = render(read_cards(args.folder))
    except EdgeError as error:
        print(f"weights_table: {error}", file=sys.stderr)
        return error.exit_code
    if args.check:
        current = page.read_text(encoding="utf-8") if page.is_file() else ""
        if current != text:
            print(f"{page} is out of date; write it with: python -m training.weights_table", file=sys.stderr)
            return 1
        return 0
    page.write_text(text, encoding="utf-8")
    print(f"{page} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
