"""Typed values out of a TOML table, each refused in one line that says where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import InputError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


class Table:
    """One table of a file, read key by key; `finish` refuses what was not asked for.

    where: the table as errors name it, "" for the file's own.
    """

    def __init__(self, path: Path, where: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._where = where
        self._values = dict(values)

    def wrong(self, problem: str) -> InputError:
        """The error that says so of this table."""
        return InputError(f"{self._path}: {self._where + ': ' if self._where else ''}{problem}")

    def has(self, key: str) -> bool:
        """Whether it is there and was not read yet."""
        return key in self._values

    def text(self, key: str) -> str:
        """A string that must be there."""
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(f'{key} is not a string, as in {key} = "…"')
        return value

    def number(self, key: str, default: float | None = None, low: float = 0.0, high: float = 1e6) -> float:
        """Within its bounds; without a default it must be there."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(f"{key} is not a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, default: int | None = None, low: int = 0, high: int = 10**9) -> int:
        """As `number`, without fractions."""
        value = self.number(key, default, low, high)
        if value != int(value):
            raise self.wrong(f"{key} is not a whole number")
        return int(value)

    def seconds(self, key: str, default: float | None = None, *, signed: bool = False) -> float:
        """A number of seconds, or "1h30m", "90s", "250ms"; "-1h" only where signed."""
        value = self._take(key, default)
        found = _seconds(value, signed=signed)
        if found is None:
            raise self.wrong(f'{key} is not a time, as in {key} = "1h30m", "90s", "250ms" or 90')
        return found

    def seconds_range(self, key: str) -> tuple[float, float]:
        """One time, or two: the least and the most."""
        value = self._take(key)
        values = [_seconds(entry) for entry in value] if isinstance(value, list) else [_seconds(value)]
        least, most = values[0] if values else None, values[-1] if values else None
        if least is None or most is None or len(values) > 2 or least > most:
            raise self.wrong(f'{key} is neither a time nor two, the least and the most, as in {key} = ["5s", "2m"]')
        return least, most

    def size(self, key: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """[width, height] in pixels."""
        value = self._take(key, list(default) if default else None)
        fits = isinstance(value, list) and len(value) == 2
        if not fits or not all(isinstance(side, int) and 32 <= side <= 8192 for side in value):
            raise self.wrong(f"{key} is not [width, height] in pixels, each 32 to 8192")
        return value[0], value[1]

    def tables(self, key: str, each: str) -> list[Table]:
        """The tables of an array, none where it is missing; `each`: what errors call them."""
        value = self._values.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.wrong(f"{key} is not a list of tables: write [[{key}]] above each")
        return [Table(self._path, f"{each} {place}", entry) for place, entry in enumerate(value, start=1)]

    def finish(self) -> None:
        """Raises InputError for a key nobody has asked for."""
        for key in self._values:
            raise self.wrong(f"{key} is not known here; see docs/camera.md")

    def _take(self, key: str, default: Any = None) -> Any:
        value = self._values.pop(key, default)
        if value is None:
            raise self.wrong(f"{key} is missing")
        return value


def _seconds(value: Any, *, signed: bool = False) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e9 and (value >= 0 or signed) else None
    if not isinstance(value, str):
        return None
    sign, text = (-1.0, value[1:]) if signed and value.startswith("-") else (1.0, value)
    if _DURATION.fullmatch(text) is None:
        return None
    return sign * sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
