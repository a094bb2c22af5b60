"""A measurement as files: report.json for programs, report.md for reviews, report.html for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report.tables import comparison_rows
from benchmarks.report.text import FILTERS, as_markdown
from edge.errors import InputError

FORMAT = "arcedge-bench"
VERSION = 1

TEMPLATES = Path(__file__).resolve().parent / "templates"
SCHEMA = Path(__file__).resolve().parent / "schema.json"


def write_report(report: Mapping[str, Any], out: Path) -> list[Path]:
    """Writes report.json, report.md and report.html into `out`; gives their paths. Raises InputError."""
    pages: dict[str, Callable[[], str]] = {
        "report.json": lambda: json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "report.md": lambda: render("report.md.j2", report),
        "report.html": lambda: render("report.html.j2", report, plots=True),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        # The figures first: they took minutes, a page can be drawn again.
        for name, page in pages.items():
            (out / name).write_text(page(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); give another --out") from error
    return [out / name for name in pages]


def render(template: str, report: Mapping[str, Any], plots: bool = False) -> str:
    """A page of the report. The HTML is one file: styles and plots inside, nothing fetched."""
    pictures = {}
    if plots:
        from benchmarks.report.plots import draw_all

        pictures = draw_all(report)
    labels = [variant["label"] for variant in report["variants"]]
    return render_page(template, r=report, labels=labels, rows=comparison_rows(report), plots=pictures)


def render_page(template: str, **values: Any) -> str:
    """A template filled in, with the styles of the report as `style` and its filters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        finalize=as_markdown if template.endswith(".md.j2") else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, **values)
