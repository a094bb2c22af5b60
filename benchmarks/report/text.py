"""Numbers as people read them: with their interval, and "not measured" where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.provenance import NOT_MEASURED

Figure = Mapping[str, Any] | None
MINUS = "−"


def number(value: float | None, digits: int = 2) -> str:
    """With a real minus and without a negative zero."""
    if value is None:
        return NOT_MEASURED
    text = f"{value:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if not any(digit in text for digit in "123456789") else MINUS + text[1:]
    return text


def interval(figure: Figure, digits: int = 2, scale: float = 1.0) -> str:
    """ "[2.30, 2.50]"."""
    if figure is None:
        return ""
    return f"[{number(scale * figure['low'], digits)}, {number(scale * figure['high'], digits)}]"


def figure(value: Figure, digits: int = 2, scale: float = 1.0) -> str:
    """ "2.40 [2.30, 2.50]"."""
    if value is None:
        return NOT_MEASURED
    return f"{number(scale * value['value'], digits)} {interval(value, digits, scale)}"


def percent(value: Figure, digits: int = 2) -> str:
    """ "99.40 % [99.05, 99.64]"."""
    if value is None:
        return NOT_MEASURED
    return f"{number(100 * value['value'], digits)} % {interval(value, digits, 100)}"


def count(value: Figure) -> str:
    """ "2,982 of 3,000"."""
    return "" if value is None else f"{value['hits']:,} of {value['count']:,}"


def share(value: float | None, digits: int = 1) -> str:
    """ "4.2 %"."""
    return NOT_MEASURED if value is None else f"{number(100 * value, digits)} %"


def size(value: int) -> str:
    """Bytes as MB (10⁶)."""
    return f"{value / 1e6:.2f} MB"


def rate(value: float) -> str:
    """A FAR: "1e-4"."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("e-", f"e{MINUS}")


def sentence(text: str) -> str:
    """With a capital at its start; names in it stay as they are."""
    return text[:1].upper() + text[1:]


def short(digest: str | None) -> str:
    """The first twelve digits of a digest."""
    return NOT_MEASURED if digest is None else digest[:12]


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def code(text: str) -> Markdown:
    """A code span that holds the text as it is, its own backticks too."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}")


def as_markdown(value: object) -> object:
    """Text of a name, a path or a message as Markdown that shows it: markup, and what ends a cell, is escaped."""
    if not isinstance(value, str) or isinstance(value, Markdown):
        return value
    return re.sub(r"[\\`*_<|~]|(?<=\])\(", r"\\\g<0>", value)


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "interval": interval,
    "figure": figure,
    "percent": percent,
    "count": count,
    "share": share,
    "size": size,
    "rate": rate,
    "short": short,
    "sentence": sentence,
    "code": code,
}
