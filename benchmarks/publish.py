"""Results for the repository: `python -m benchmarks.publish report.json --name lfw` keeps the figures of a run.

Names of people, paths and pictures stay where they were measured. `docs/results.md` and the list in
`benchmarks/results/README.md` are made from the kept files alone, by the same command without arguments; a test fails
where they differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.compare import read_report
from benchmarks.report.tables import comparison_rows
from benchmarks.report.text import number, share, short
from edge.errors import InputError

RESULTS = Path(__file__).resolve().parent / "results"
INDEX = "README.md"
PAGE = RESULTS.parent.parent / "docs" / "results.md"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def publishable(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report without names of people and without folders; every figure stays."""
    kept: dict[str, Any] = json.loads(json.dumps(report))
    for part in (kept["accuracy"]["pairs"], kept["accuracy"]["identities"]):
        if part:
            for position, row in enumerate(part["errors_by_identity"]["worst"], start=1):
                row["identity"] = f"person {position}"
    kept["provenance"]["command"] = _without_folders(kept["provenance"]["command"])
    kept["overlap"]["statement"] = _optional(kept["overlap"]["statement"])
    kept["warnings"] = [_without_folders(line) for line in kept["warnings"]]
    kept["provenance"]["bundle"]["provenance"] = {}
    if kept.get("peers"):
        kept["peers"]["missing"] = [_without_folders(line) for line in kept["peers"]["missing"]]
    for variant in kept["variants"]:
        if variant["threshold"]:
            variant["threshold"]["source"] = _without_folders(variant["threshold"]["source"])
    return kept


def _optional(text: str | None) -> str | None:
    return None if text is None else _without_folders(text)


def _without_folders(text: str) -> str:
    """Each path that is absolute, or leads out of the folder, becomes its last part."""
    return re.sub(r"(?<![\w.])(?:\.\.?)?/(?:[^\s/'\"]+/)*([^\s/'\"]+)/?", r"\1", text)


def file_name(report: Mapping[str, Any], name: str) -> str:
    """Date, processor and what was measured: "2026-11-23-intel-xeon-lfw.json"."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r}: a result's name is small letters, digits and hyphens, as in lfw-relu")
    words = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", report["provenance"]["machine"]["cpu"])
    processor = "-".join(re.findall(r"[a-z0-9]+", words.lower())) or "cpu"
    return f"{report['provenance']['time'][:10]}-{processor}-{name}.json"


def publish(source: Path, name: str, results: Path = RESULTS, page: Path = PAGE) -> Path:
    """Keeps one report and writes the pages anew. Raises InputError."""
    report = read_report(source)
    target = results / file_name(report, name)
    text = json.dumps(publishable(report), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    results.mkdir(exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")
    write_pages(results, page)
    return target


def write_pages(results: Path = RESULTS, page: Path = PAGE) -> None:
    """The list beside the files, and the page of all figures."""
    (results / INDEX).write_text(index(results), encoding="utf-8")
    page.write_text(figures(results), encoding="utf-8")


def kept_files(results: Path = RESULTS) -> list[Path]:
    """Newest first: names begin with the day."""
    files = [(read_report(path)["provenance"]["time"], path.name, path) for path in results.glob("*.json")]
    return [path for _, _, path in sorted(files, reverse=True)]


def index(results: Path = RESULTS) -> str:
    """The list of kept results, newest first."""
    lines = [
        "# Kept results",
        "",
        "JSON of `edge bench` after [the schema](../report/schema.json). [docs/results.md](../../docs/results.md) has",
        "the figures. Both pages are made by `python -m benchmarks.publish`.",
        "",
        "| file | machine | variants | peers |",
        "|---|---|---|---|",
    ]
    for path in kept_files(results):
        report = read_report(path)
        machine = report["provenance"]["machine"]
        variants = ", ".join(variant["label"] for variant in report["variants"])
        peers = ", ".join((report.get("peers") or {}).get("described", {})) or "–"
        lines.append(
            f"| [{path.stem}]({path.name}) | {machine['cpu']}, {machine['cores']} cores | {variants} | {peers} |"
        )
    return "\n".join(lines) + "\n"


def figures(results: Path = RESULTS) -> str:
    """The page over all kept results, newest first."""
    lines = [
        "# Results",
        "",
        "Made by `python -m benchmarks.publish` from [benchmarks/results](../benchmarks/results/README.md).",
        "Brackets hold 95 % intervals. How each figure is measured: [benchmarks](benchmarks.md).",
    ]
    files = kept_files(results)
    if not files:
        lines += ["", "Nothing was kept yet."]
    for path in files:
        lines += ["", *section(read_report(path), path)]
    return "\n".join(lines) + "\n"


def section(report: Mapping[str, Any], path: Path) -> list[str]:
    """One result: verdicts, warnings, table, machine."""
    labels = [variant["label"] for variant in report["variants"]]
    machine, load = report["provenance"]["machine"], report["provenance"]["load"]
    lines = [f"## [{path.stem}](../benchmarks/results/{path.name})", ""]
    lines += [
        f"- **{verdict['decision']}**: {'. '.join([verdict['sentence'], *verdict.get('notes', [])])}."
        for verdict in report["verdicts"]
    ]
    lines += [f"- {line}" for line in report["warnings"]]
    lines += ["", f"| | {' | '.join(labels)} | over |", f"|---|{'---:|' * len(labels)}---|"]
    for row in comparison_rows(report):
        cells = " | ".join(f"{cell.value} {cell.detail}".strip() for cell in row.cells)
        lines.append(f"| {row.name} | {cells} | {row.over} |")
    for one in (report.get("peers") or {}).get("sentences", []):
        lines += ["", *_beside(one, report["peers"]["described"][one["peer"]])]
    frames = report["latency"]["frames"]
    lines += [
        "",
        f"{report['provenance']['time']} on {machine['cpu']}, {machine['cores']} cores"
        f"{' (virtual machine)' if machine['virtual'] else ''}, {report['latency']['threads']} thread a model; "
        f"load {number(load['load_before'], 1)} before and {number(load['load_after'], 1)} after, other processes took "
        f"{share(load['others_share'])} of the machine. {frames['with_faces']} frames with {frames['faces']} faces "
        f"({frames['source']}). Bundle `{short(report['provenance']['bundle']['digest'])}`. "
        f"{report['accuracy']['faces'][:1].upper()}{report['accuracy']['faces'][1:]}.",
    ]
    return lines


def _beside(one: Mapping[str, Any], described: Mapping[str, Any]) -> list[str]:
    lines = [f"Beside **{one['peer']}** ({described['version']}; {described['runs']}):", ""]
    for kind, said in (
        ("better", "the peer is better"),
        ("open", "cannot be told apart"),
        ("worse", "the peer is worse"),
    ):
        lines += [f"- {said}: {line}." for line in one[kind]]
    return lines


@command("publish")
def main(arguments: list[str] | None = None) -> int:
    """With a report: keeps it. Always: writes the index."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("report", nargs="?", type=Path, help="report.json of edge bench")
    parser.add_argument("--name", default="bundle", help="what was measured, in the file's name (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    parser.add_argument("--page", type=Path, default=PAGE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.report:
        print(publish(options.report, options.name, options.results, options.page).name)
    else:
        write_pages(options.results, options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
