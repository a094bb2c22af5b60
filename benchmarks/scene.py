"""What a measurement is given, and what its parts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.frames import DEFAULT_FRAMES, Frames
from benchmarks.interleave import Plan
from benchmarks.latency import Work
from benchmarks.peers.base import Peer
from benchmarks.peers.own import OwnLine
from benchmarks.subjects import Choice, Subject
from benchmarks.verdict import Budget
from edge.analyze import FaceAnalyzer

BATCHES = (1, 2, 4, 8, 16, 32, 64)

Announce = Callable[[str], Callable[[float], None]]
"""Told the name of each long step; gives the function that is told the share of it done."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to measure, and what on. None and empty: not measured, or the default frames.

    bundles: the first one's highest precision is the baseline. faces: folder of pictures with true boxes.
    landmarks: an SCRFD whose landmarks are the yardstick. peer_models: folder of the peers' model files.
    """

    bundles: tuple[Path, ...]
    pairs: Path | None = None
    images: Path | None = None
    identities: Path | None = None
    faces: Path | None = None
    landmarks: Path | None = None
    video: Path | None = None
    pictures: tuple[Path, ...] = ()
    not_in: tuple[Path, ...] = ()
    peers: tuple[str, ...] = ()
    peer_models: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    height: lines that frames are scaled down to. batches: sizes, empty for none. sweeps: threads, streams, energy too.
    """

    choice: Choice = field(default_factory=Choice)
    plan: Plan = field(default_factory=Plan)
    frames: int = DEFAULT_FRAMES
    height: int | None = None
    batches: tuple[int, ...] = BATCHES
    sweeps: bool = True
    own_detector: bool = False
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True)
class Scene:
    """What the parts of a measurement share: what is open, what it runs on, and how."""

    subjects: Sequence[Subject]
    analyzers: Mapping[str, FaceAnalyzer]
    peers: Mapping[str, Peer]
    frames: Frames
    work: Sequence[Work]
    settings: Settings
    announce: Announce

    @property
    def baseline(self) -> str:
        """The label everything is compared with."""
        return self.subjects[0].label

    def lines(self) -> dict[str, Peer]:
        """Variants and peers behind one protocol."""
        return {**{label: OwnLine(label, analyzer) for label, analyzer in self.analyzers.items()}, **self.peers}
