"""What the doctor says: findings with their pictures and their remedy, as a table and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["ok", "note", "warning", "fatal"]

_WIDTH, _INDENT = 110, 26
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for. check: its name; seen: what was found; advice: what to do, empty where nothing need be.

    pictures: those it is about, all of them. fatal: calibrating on this set would be wrong, not merely worse.
    """

    severity: Severity
    check: str
    seen: str
    advice: str = ""
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings over `count` pictures of which `faces` show a face; figures: what was measured, JSON-ready."""

    folder: str
    count: int
    faces: int
    findings: tuple[Finding, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fatal(self) -> bool:
        """Whether this set must not be calibrated on as it is."""
        return any(finding.severity == "fatal" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"format": "arcedge-calibration-doctor", "version": 1, "fatal": self.fatal, **asdict(self)}

    def as_text(self) -> str:
        """A table for people: one finding a paragraph, its remedy and the first of its pictures below it."""
        lines = [f"{self.folder}: {self.count} pictures, {self.faces} with a face", ""]
        for finding in self.findings:
            lines += _paragraph(f"{finding.severity:8} {finding.check:16} ", finding.seen)
            lines += _paragraph("", finding.advice)
            lines += _paragraph("", _named(finding.pictures))
        lines += ["", "do not calibrate on these photos as they are" if self.fatal else "fit to calibrate on"]
        return "\n".join(lines)


def _paragraph(head: str, text: str) -> list[str]:
    """Lines of `text` beside one another, `head` in front of the first; none for no text."""
    body = textwrap.wrap(text, _WIDTH - _INDENT, break_on_hyphens=False, break_long_words=False)
    return [f"{head if i == 0 else '':<{_INDENT}}{line}" for i, line in enumerate(body)]


def _named(pictures: tuple[str, ...]) -> str:
    more = len(pictures) - _NAMED
    return ", ".join(pictures[:_NAMED]) + (f" and {more} more" if more > 0 else "")
