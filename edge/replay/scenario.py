"""A scenario: what the camera shows and what goes wrong when, read from TOML. Pure values; nothing happens here."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from edge.errors import InputError
from edge.pictures import read_picture
from edge.replay.tables import Table
from edge.types import Image

Kind = Literal[
    "stall",
    "drop",
    "disconnect",
    "corrupt",
    "black",
    "resolution",
    "clock",
    "slow",
    "engine",
    "disk",
    "gallery",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_IN_SHARES = ("drop", "corrupt", "engine")
MAX_WINDOWS = 100_000


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to, not including, `end`, in seconds of the scenario."""

    start: float
    end: float

    def holds(self, moment: float) -> bool:
        """Whether `moment` lies within."""
        return self.start <= moment < self.end


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong for a while.

    share: of frames it strikes (drop, corrupt, engine). seconds: what a result costs the consumer (slow), or how far
    the wall clock jumps (clock). size: (width, height) meanwhile (resolution).
    """

    kind: Kind
    window: Window
    share: float = 1.0
    seconds: float = 0.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Show:
    """A picture before the camera for a while, swaying a little.

    fps: of the camera meanwhile. x, y: the picture's middle, height: its height, as shares of the frame's.
    """

    image: Image
    window: Window
    fps: float
    x: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """length: seconds. size: (width, height) of frames. fps: of the camera while nothing is shown."""

    path: Path
    seed: int
    length: float
    size: tuple[int, int]
    fps: float
    shows: tuple[Show, ...]
    troubles: tuple[Trouble, ...]

    def of(self, *kinds: Kind) -> list[Trouble]:
        """The troubles of these kinds, by their beginning."""
        return sorted((each for each in self.troubles if each.kind in kinds), key=lambda each: each.window.start)


def read_scenario(path: Path) -> Scenario:
    """Raises InputError for a file that cannot be read, is no TOML, or says what cannot be."""
    table = Table(path, "", _toml(path))
    seed = table.whole("seed", 0)
    length = table.seconds("length")
    if not 0 < length <= 366 * 86400:
        raise table.wrong("length is not above 0 and up to a year")
    size = table.size("size", (640, 360))
    fps = table.number("fps", 1.0, 1e-4, 240)
    # A generator a table: a line changed or added leaves the draws of the others as they were.
    shows = [
        show
        for place, entry in enumerate(table.tables("show", "show"))
        for show in _shows(path, entry, length, fps, _random(seed, "show", place))
    ]
    troubles = [
        trouble
        for place, entry in enumerate(table.tables("trouble", "trouble"))
        for trouble in _troubles(entry, length, _random(seed, "trouble", place))
    ]
    table.finish()
    return Scenario(path, seed, length, size, fps, tuple(shows), tuple(troubles))


def _random(seed: int, what: str, place: int) -> random.Random:
    return random.Random(f"{seed} {what} {place}")  # noqa: S311 - draws a scenario, guards nothing


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # the standard library has no TOML reader before 3.11
        import tomli as tomllib
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from error
    return values


def _shows(path: Path, table: Table, length: float, fps: float, draw: random.Random) -> list[Show]:
    image = read_picture(path.parent / table.text("picture"))
    fps = table.number("fps", fps, 1e-4, 240)
    x, y = table.number("x", 0.5, high=1.0), table.number("y", 0.5, high=1.0)
    height = table.number("height", 0.8, 0.05, 4.0)
    windows = _windows(table, length, draw)
    table.finish()
    return [Show(image, window, fps, x, y, height) for window in windows]


def _troubles(table: Table, length: float, draw: random.Random) -> list[Trouble]:
    name = table.text("kind")
    kind = next((known for known in KINDS if known == name), None)
    if kind is None:
        raise table.wrong(f"kind is none of {', '.join(KINDS)}")
    share = table.number("share", 1.0, high=1.0) if kind in _IN_SHARES else 1.0
    seconds, size = 0.0, None
    if kind == "clock":
        seconds = table.seconds("by", signed=True)
    elif kind == "slow":
        seconds = table.seconds("by")
    elif kind == "resolution":
        size = table.size("size")
    windows = _windows(table, length, draw, lasting=kind != "clock")
    table.finish()
    return [Trouble(kind, window, share, seconds, size) for window in windows]


def _windows(table: Table, length: float, draw: random.Random, *, lasting: bool = True) -> list[Window]:
    """`at`, once or `every` so often, or `times` at moments drawn by the seed; each `for` as long."""
    shortest, longest = table.seconds_range("for") if lasting else (0.0, 0.0)
    if table.has("times"):
        starts = sorted(draw.uniform(0.0, length) for _ in range(table.whole("times", low=1, high=MAX_WINDOWS)))
    else:
        first = table.seconds("at", 0.0)
        every = table.seconds("every") if table.has("every") else length
        if every <= 0 or length / every > MAX_WINDOWS:
            raise table.wrong(f"every is too short: more than {MAX_WINDOWS} times in the length")
        starts = [first + i * every for i in range(int(max(0.0, length - first) // every) + 1)]
    return [Window(start, start + draw.uniform(shortest, longest)) for start in starts if start < length]
