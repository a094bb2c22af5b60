"""The card beside shipped weights, `NAME.card.json`: the entries that every card has, whoever trained the weights.

A card may hold more (recipe, splits, thresholds); these are what `edge weights` and the table of weights read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.weights.digests import digest_of

CARD_SUFFIX = ".card.json"
_TEXTS = ("name", "role", "file", "sha256", "licence")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    what: the quantity in words. value: in `unit` ("%", "ms", "" for a plain number), None for "not measured".
    low, high: its 95 % interval; count: over how many samples; on: which data, and which machine where that matters.
    target: what was aimed at, in words; met: whether it was, None where there was no target.
    """

    what: str
    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    on: str = ""
    unit: str = ""
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What every card states. size: bytes; data: what the weights learned from, with its licence."""

    path: Path
    name: str
    role: str
    file: str
    sha256: str
    size: int
    parameters: int
    licence: str
    data: str
    figures: tuple[Figure, ...]
    limits: tuple[str, ...]

    @property
    def weights(self) -> Path:
        """The file the card is about, beside it."""
        return self.path.with_name(self.file)

    def fault(self) -> str | None:
        """How the file differs from the card, in a few words; None where it is the very file."""
        if not self.weights.is_file():
            return "is missing"
        if (size := self.weights.stat().st_size) != self.size:
            return f"has {size} bytes, its card says {self.size}"
        if (found := digest_of(self.weights)) != self.sha256:
            return f"has sha256 {found}, its card says {self.sha256}"
        return None


def read_cards(folder: Path) -> tuple[Card, ...]:
    """Every card of a folder, by name. Raises InputError for one that lacks an entry."""
    return tuple(read_card(path) for path in sorted(folder.glob("*" + CARD_SUFFIX)))


def read_card(path: Path) -> Card:
    """Raises InputError that names the missing or unfit entry."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _card(path, values)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: not a card of weights ({_reason(error)}); docs/weights.md has its entries"
        ) from error


def _card(path: Path, values: dict[str, Any]) -> Card:
    texts = {key: _text(values, key) for key in _TEXTS}
    if path.name != texts["name"] + CARD_SUFFIX or Path(texts["file"]).name != texts["file"]:
        raise ValueError("the card of NAME is NAME.card.json, beside its file")
    return Card(
        path=path,
        **texts,
        size=_count(values, "size"),
        parameters=_count(values, "parameters"),
        data=_text(values, "data"),
        figures=tuple(_figure(figure) for figure in values["figures"]),
        limits=tuple(str(limit) for limit in values["limits"]),
    )


def _figure(values: dict[str, Any]) -> Figure:
    figure = Figure(**values)
    numbers = [number for number in (figure.value, figure.low, figure.high) if number is not None]
    if not figure.what or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"figure {figure.what!r}: what it is, and finite numbers, are needed")
    if figure.value is not None and not figure.on:
        raise ValueError(f"figure {figure.what!r}: `on` must say on which data it was measured")
    if None not in (figure.low, figure.high) and not numbers[1] <= numbers[0] <= numbers[2]:
        raise ValueError(f"figure {figure.what!r}: lies outside its interval")
    return figure


def _text(values: dict[str, Any], key: str) -> str:
    value = values[key]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key} must be text")
    return value


def _count(values: dict[str, Any], key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError(f"{key} must be a whole number of 1 or more")
    return value


def _reason(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
