"""README's figures, made from kept results and cards: `python -m benchmarks.readme` writes them between their markers.

A block begins with `<!-- made by python -m benchmarks.readme: NAME -->` and ends with `<!-- end of NAME -->`. A test
fails where README says something else than the files.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.compare import read_report
from benchmarks.publish import RESULTS, kept_files
from benchmarks.report.console import table_lines, verdict_lines
from benchmarks.report.tables import Row
from benchmarks.report.text import number
from edge.errors import InputError

ROOT = RESULTS.parent.parent
README = ROOT / "README.md"
CARDS = ROOT / "model_weights"
RESULT = "own-weights-512-lfw"
"""The name of the kept result that README shows: the newest file that ends so."""

WIDTH = 112

LEFT_OUT = ("Landmark", "Open set", "TAR at FAR 1e−2")
"""Rows that stand on the page of results alone."""

Measured = Sequence[tuple[str, str]]
"""(a figure's name in a card, the words around it): {value}, {low}, {high}, {count} and {unit} are filled in."""

WEIGHTS: Mapping[str, Measured] = {
    "mobilefacenet-512": (
        ("verification accuracy", "LFW folds 1–5 {value} % [{low}, {high}] of {count} pairs"),
        ("verification accuracy, faces found by yunet_s_dynamic", "through YuNet-s {value} % [{low}, {high}]"),
        ("TAR at FAR 0.001", "TAR at FAR 1e-3 {value} % [{low}, {high}]"),
    ),
    "mobilefacenet-avengers": (
        ("distinct test photos named right, by the head", "test photos {value} % [{low}, {high}] of {count}"),
        ("verification accuracy lost to fine-tuning", "{value} points lost on LFW"),
    ),
    "edge-detector": (
        (
            "AP@0.5, faces of 20 px and more",
            "AP@0.5 on WIDER FACE, faces of 20 px and more, {value} % [{low}, {high}]",
        ),
    ),
    "edge-landmarker": (
        (
            "landmark error behind edge-detector, median",
            "landmarks {value} % of the eye distance from SCRFD-2.5G's [{low}, {high}]",
        ),
        ("landmark error of edge-detector alone, median, for comparison", "the detector's own {value} %"),
    ),
}


def write_readme(readme: Path = README) -> bool:
    """Writes the blocks anew; whether anything changed. Raises InputError for a missing marker, result or figure."""
    before = readme.read_text(encoding="utf-8")
    after = filled(before)
    readme.write_text(after, encoding="utf-8")
    return before != after


def filled(text: str) -> str:
    """README's text with every block as the files have it."""
    for name, lines in (("bench", bench_block()), ("weights", weights_block(text))):
        text = _replaced(text, name, lines)
    return text


def bench_block() -> list[str]:
    """The command and what it printed of the bundle's variants, shortened."""
    report = read_report(newest(RESULT))
    first = report["variants"][0]["engine"]
    labels = [variant["label"] for variant in report["variants"] if variant["engine"] == first]
    table = table_lines(report, labels, _shown)
    said = [textwrap.fill(line, WIDTH + 8) for line in verdict_lines({**report, "peers": None}, labels)]
    busy = [f"edge bench: {line}" for line in report["warnings"] if line.startswith("Busy machine")]
    return ["```console", *_command(report), *table, *said, *busy, "```"]


def _command(report: Mapping[str, Any]) -> list[str]:
    words = textwrap.wrap(f"$ {report['provenance']['command']}", WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line + (" \\" if i < len(words) - 1 else "") for i, line in enumerate(_indented(words))]


def _indented(lines: Sequence[str]) -> list[str]:
    return [line if i == 0 else f"    {line}" for i, line in enumerate(lines)]


def _shown(row: Row) -> bool:
    return not row.name.startswith(LEFT_OUT)


def newest(name: str, results: Path = RESULTS) -> Path:
    """The newest kept file of a name. Raises InputError."""
    for path in kept_files(results):
        if path.stem.endswith(f"-{name}"):
            return path
    raise InputError(f"{results}: no kept result ends with -{name}; keep one with python -m benchmarks.publish")


def weights_block(text: str) -> list[str]:
    """The table of shipped weights: what they are as README has it, what was measured from the cards."""
    rows = [f"| `{name}` | {_what(text, name)} | {_measured(name, wanted)} |" for name, wanted in WEIGHTS.items()]
    return ["| weights | what | measured |", "|---|---|---|", *rows]


def _what(text: str, name: str) -> str:
    for line in text.splitlines():
        if line.startswith(f"| `{name}` |"):
            return line.split("|")[2].strip()
    raise InputError(f"README.md: no row of the weights {name}; write one, `| {name} | what it is | |`, and run again")


def _measured(name: str, wanted: Measured) -> str:
    card = json.loads((CARDS / f"{name}.card.json").read_text(encoding="utf-8"))
    figures = {figure["what"]: figure for figure in card["figures"]}
    said = []
    for what, words in wanted:
        if what not in figures:
            raise InputError(
                f"{name}.card.json: has no figure {what!r}; say in benchmarks/readme.py which stands for it"
            )
        said.append(words.format(**_words(figures[what])))
    return "; ".join(said)


def _words(figure: Mapping[str, Any]) -> dict[str, str]:
    numbers = {key: number(figure[key]) for key in ("value", "low", "high") if figure.get(key) is not None}
    return {**numbers, "count": f"{figure['count']:,}" if figure.get("count") else ""}


def _replaced(text: str, name: str, lines: Sequence[str]) -> str:
    start, end = f"<!-- made by python -m benchmarks.readme: {name} -->", f"<!-- end of {name} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise InputError(f"README.md: the markers of the block {name!r} are missing or doubled; put them back")
    head, rest = text.split(start)
    return "\n".join([head + start, *lines, end + rest.split(end)[1]])


@command("readme")
def main() -> int:
    """`python -m benchmarks.readme`."""
    print("README.md: written anew" if write_readme() else "README.md: as it was")
    return 0


if __name__ == "__main__":
    sys.exit(main())
