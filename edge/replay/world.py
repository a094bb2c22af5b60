"""The world a replay runs in: its time, and what the scenarios do to engines, gallery and sinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from edge.analyze import Analyzer
from edge.clock import SimulatedClock
from edge.errors import EngineError, GalleryError, InputError
from edge.gallery import Snapshot
from edge.pipeline import Pipeline, Stream
from edge.replay.scenario import Kind, Scenario, Trouble
from edge.replay.source import ReplaySource, clock_jumps
from edge.replay.timetable import Timetable
from edge.sinks import Sink, name_of
from edge.summary import Summary
from edge.types import Face, Floats, FrameResult, Image, Picture

SCHEME = "replay://"


class World:
    """Sources by label, all on one simulated clock; troubles beyond the cameras strike everybody.

    Whatever of a run reads a clock has to take `clock`, and the run has to have one thread.
    """

    def __init__(self, scenarios: Mapping[str, Scenario]) -> None:
        self._scenarios = dict(scenarios)
        self.clock = SimulatedClock(
            jumps=[jump for scenario in self._scenarios.values() for jump in clock_jumps(scenario)]
        )

    def sources(self) -> list[ReplaySource]:
        """One a scenario, in their order."""
        return [ReplaySource(scenario, label, self.clock) for label, scenario in self._scenarios.items()]

    def troubled(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline in this world: on its clock, with engines, gallery and sinks that fail as the scenarios say."""
        return replace(
            pipeline,
            analyzers=[self.analyzer(analyzer) for analyzer in pipeline.analyzers],
            gallery=self.gallery(pipeline.gallery),
            sinks=self.sinks(pipeline.sinks),
            summary=Summary(self.clock),
            clock=self.clock,
        )

    def analyzer(self, analyzer: Analyzer) -> Analyzer:
        """Fails with EngineError as "engine" says, on detection and embedding."""
        return _TroubledAnalyzer(analyzer, self._moments("engine"), self._draws())

    def gallery(self, read: Callable[[], Snapshot]) -> Callable[[], Snapshot]:
        """Raises GalleryError as "gallery" says."""
        moments = self._moments("gallery")

        def troubled() -> Snapshot:
            if moments():
                raise GalleryError("the gallery is locked by another process")
            return read()

        return troubled

    def troubled_stream(self, stream: Stream) -> Stream:
        """The stream with sinks of its own that fail as the scenarios say."""
        return replace(stream, sinks=self._on_a_disk(stream.sinks))

    def sinks(self, sinks: Sequence[Sink]) -> list[Sink]:
        """Raise InputError as "disk" says; behind them one that takes its time as "slow" says."""
        return [*self._on_a_disk(sinks), _SlowConsumer(self)]

    def _on_a_disk(self, sinks: Sequence[Sink]) -> list[Sink]:
        return [_FullDisk(sink, self._moments("disk")) for sink in sinks]

    def _moments(self, *kinds: Kind) -> Callable[[], list[Trouble]]:
        """What of these kinds is going on now."""
        troubles = [trouble for scenario in self._scenarios.values() for trouble in scenario.of(*kinds)]
        timetable: Timetable[Trouble] = Timetable(troubles, lambda trouble: trouble.window)
        return lambda: timetable.at(self.clock.monotonic())

    def _draws(self) -> Callable[[], float]:
        seeds = " ".join(str(scenario.seed) for scenario in self._scenarios.values())
        return Random(f"{seeds} engine").random  # noqa: S311 - draws a scenario, guards nothing

    def slow_by(self) -> Callable[[], float]:
        """Gives the seconds a result costs the consumer now."""
        moments = self._moments("slow")
        return lambda: sum(trouble.seconds for trouble in moments())


class _TroubledAnalyzer:
    """Passes calls on, or fails as an engine does."""

    def __init__(self, analyzer: Analyzer, moments: Callable[[], list[Trouble]], draw: Callable[[], float]) -> None:
        self._analyzer = analyzer
        self._moments = moments
        self._draw = draw

    def detect(self, image: Picture) -> list[Face]:
        self._strike()
        return self._analyzer.detect(image)

    def align(self, image: Picture, faces: Sequence[Face]) -> Image:
        return self._analyzer.align(image, faces)

    def embed(self, crops: Image) -> Floats:
        self._strike()
        return self._analyzer.embed(crops)

    def _strike(self) -> None:
        if any(self._draw() < trouble.share for trouble in self._moments()):
            raise EngineError("the engine failed, as the scenario says")


class _FullDisk:
    """A sink that cannot write for a while."""

    def __init__(self, sink: Sink, moments: Callable[[], list[Trouble]]) -> None:
        self._sink = sink
        self._moments = moments
        self.name = name_of(sink)

    def write(self, result: FrameResult) -> None:
        if self._moments():
            raise InputError(f"{type(self._sink).__name__}: cannot be written (No space left on device)")
        self._sink.write(result)

    def close(self) -> None:
        self._sink.close()


class _SlowConsumer:
    """A sink that takes simulated time."""

    name = "consumer"

    def __init__(self, world: World) -> None:
        self._world = world
        self._seconds = world.slow_by()

    def write(self, _: FrameResult) -> None:
        self._world.clock.sleep(self._seconds())

    def close(self) -> None:
        return
