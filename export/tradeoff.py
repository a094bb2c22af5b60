"""What layers in float buy and cost: accuracy against processor time of every choice, and the one that was taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.metrics.intervals import Interval
from export.latency import measured_on, processor_times
from export.sensitivity import LayerSensitivity, Scores, orders
from export.subject import Subject

WHOLE, FLOAT = "INT8", "FP32"
COUNTS = (1, 2, 3, 5, 8, 13, 21)
"""How many layers are kept in float at once, to see where more of them stop being worth it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One choice. keep: its layers in float. milliseconds: median processor time of a run; dearer: beyond whole INT8.

    front: no other choice is both as fast and as good, or better.
    """

    name: str
    keep: frozenset[str]
    scores: Scores
    milliseconds: Interval
    dearer: Interval
    front: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "kept": sorted(self.keep),
            **self.scores.to_dict(),
            "milliseconds": self.milliseconds.to_dict(),
            "milliseconds_beyond_int8": self.dearer.to_dict(),
            "pareto": self.front,
        }


@dataclass(frozen=True, slots=True)
class TradeOff:
    """points: whole INT8, one layer in float, several, FP32. layers: sensitivity. chosen: the name of a point.

    figure, on: what was judged and on which pictures. machine: what the times are of. why: of the choice, in words.
    remarks: what else a reader should know.
    """

    role: str
    figure: str
    on: str
    machine: str
    layers: tuple[LayerSensitivity, ...]
    points: tuple[Point, ...]
    chosen: str
    why: str
    remarks: tuple[str, ...] = ()

    @property
    def choice(self) -> Point:
        """The point that was taken."""
        return self.point(self.chosen)

    def point(self, name: str) -> Point:
        """A point by name."""
        return next(point for point in self.points if point.name == name)

    @property
    def shown(self) -> tuple[Point, ...]:
        """Fastest first, the points of several layers, of none and of all, what was taken, and the front."""
        points = (p for p in self.points if len(p.keep) != 1 or p.front or p.name == self.chosen)
        return tuple(sorted(points, key=lambda point: point.milliseconds.value))

    def summary(self) -> dict[str, Any]:
        """JSON-ready, for a bundle: the choice, and what it was taken among."""
        return {
            "figure": self.figure,
            "on": self.on,
            "machine": self.machine,
            "chosen": self.chosen,
            "why": self.why,
            "remarks": list(self.remarks),
            "points": [point.to_dict() for point in self.shown],
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with every layer."""
        every = {"points": [p.to_dict() for p in self.points], "layers": [layer.to_dict() for layer in self.layers]}
        return {**self.summary(), **every}


def measure(
    subject: Subject,
    layers: Sequence[LayerSensitivity],
    chosen: frozenset[str],
    why: str,
    *,
    extra: Sequence[frozenset[str]] = (),
    quiet: bool = False,
) -> TradeOff:
    """Every choice judged, and timed in turns on this machine.

    layers: the subject's sensitivity, whose figures are not measured again. extra: further sets of layers to look at.
    """
    known = {frozenset({entry.layer}): entry.without for entry in layers}
    order = orders(layers)["what keeping each wins"]
    several = [frozenset(order[:count]) for count in COUNTS if count < len(order)]
    sets = list(dict.fromkeys([frozenset[str](), *known, *several, *extra, chosen]))
    keeps = _named(sets)
    data = {name: subject.build(keep) for name, keep in keeps.items()} | {FLOAT: subject.float_bytes()}
    scores = {name: known.get(keeps[name]) if name in keeps else None for name in data}
    judged = {name: score if score is not None else subject.judge(data[name]) for name, score in scores.items()}
    times = processor_times(data, subject.pixels, quiet=quiet)
    median = {name: times.median(name) for name in data}
    best = pareto({name: (median[name].value, judged[name].figure) for name in data})
    keeps[FLOAT] = frozenset(entry.layer for entry in layers)
    points = tuple(
        Point(name, keeps[name], judged[name], median[name], times.dearer(name, WHOLE), name in best) for name in data
    )
    name = next(name for name, keep in keeps.items() if keep == chosen)
    found = TradeOff(subject.role, subject.figure, subject.on, measured_on(), tuple(layers), points, name, why)
    return replace(found, remarks=tuple(_remarks(found, subject.note)))


def pareto(points: Mapping[str, tuple[float, float]]) -> frozenset[str]:
    """Of (cost, worth) by name: those that no other beats, being as cheap and as good, and better in one of the two."""
    return frozenset(
        name
        for name, (cost, worth) in points.items()
        if not any(
            (other, value) != (cost, worth) and other <= cost and value >= worth for other, value in points.values()
        )
    )


def _remarks(found: TradeOff, note: str) -> Iterator[str]:
    if note:
        yield note
    choice, plain = found.choice, found.point(FLOAT)
    if choice.milliseconds.high >= plain.milliseconds.low:
        yield (
            f"INT8 is not worth it for the {found.role} on ONNX Runtime here: {choice.milliseconds.value:.2f} ms "
            f"against {plain.milliseconds.value:.2f} in FP32"
        )
    as_good = [p for p in found.points if p.name != FLOAT and p.scores.figure >= choice.scores.figure]
    faster = min(as_good, key=lambda point: point.dearer.high)
    if faster.dearer.high < choice.dearer.low:
        yield (
            f"with {faster.name} in float it is as good and faster: {faster.milliseconds.value:.2f} ms "
            f"against {choice.milliseconds.value:.2f}"
        )


def _named(sets: Sequence[frozenset[str]]) -> dict[str, frozenset[str]]:
    """Each set of layers by a name of its own: the layer's where it is one, else how many they are."""
    named: dict[str, frozenset[str]] = {}
    for keep in sets:
        name = WHOLE if not keep else next(iter(keep)) if len(keep) == 1 else f"{len(keep)} layers"
        others = 2
        while name in named:
            name, others = f"{len(keep)} layers ({others})", others + 1
        named[name] = keep
    return named
