"""The comparison as a table for a terminal, and for README."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report.tables import Row, comparison_rows


def table_lines(
    report: Mapping[str, Any], labels: Sequence[str] | None = None, keep: Callable[[Row], bool] = lambda row: True
) -> list[str]:
    """Lines of equal columns: a figure a row with its interval, a variant a column. labels: of the report, else all."""
    every = [variant["label"] for variant in report["variants"]]
    chosen = [every.index(label) for label in (labels if labels is not None else every)]
    table = [["", *(every[i] for i in chosen)]]
    for row in filter(keep, comparison_rows(report)):
        cells = [row.cells[i] for i in chosen]
        table.append([row.name, *(f"{cell.value} {_brackets(cell.detail)}".strip() for cell in cells)])
    widths = [max(len(line[column]) for line in table) for column in range(len(chosen) + 1)]
    return [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in table
    ]


def verdict_lines(report: Mapping[str, Any], labels: Sequence[str] | None = None) -> list[str]:
    """A sentence a variant with its notes, then what each peer does better."""
    lines = [
        f"{'. '.join([verdict['sentence'], *verdict.get('notes', [])])}."
        for verdict in report["verdicts"]
        if labels is None or verdict["variant"] in labels
    ]
    for one in (report.get("peers") or {}).get("sentences", []):
        lines += [f"{one['peer']}: {kind}: {'; '.join(one[kind])}." for kind in ("better", "worse") if one[kind]]
    return lines


def _brackets(detail: str) -> str:
    return detail[: detail.index("]") + 1] if detail.startswith("[") else ""
