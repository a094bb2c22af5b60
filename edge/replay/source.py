"""A live source in simulated time: the supervision cameras have, without its thread."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

from edge.clock import SimulatedClock
from edge.replay.camera import ReplayCamera
from edge.replay.scenario import Scenario
from edge.sources.backoff import Backoff
from edge.sources.base import Source, SourceCounts
from edge.sources.supervision import SupervisedCapture, Supervision
from edge.types import Frame


class ReplaySource(Source):
    """The newest frame at the consumer's time; those before it that nobody took are dropped, as a camera's are.

    The camera lives on a clock of its own, which is let run up to the consumer's whenever a frame is asked for: what a
    capture thread does side by side with its consumer happens here one after the other, the same in every run.
    """

    live = True
    length = None

    def __init__(self, scenario: Scenario, label: str, clock: SimulatedClock) -> None:
        """clock: the consumer's."""
        own = SimulatedClock(jumps=clock_jumps(scenario))
        camera = ReplayCamera(scenario, own, label)
        draw = random.Random(f"{scenario.seed} back-off")  # noqa: S311 - draws a scenario, guards nothing
        self.name = label
        self.fps = camera.fps
        self._clock = clock
        self._own = own
        self._stopping = threading.Event()
        self._supervised = SupervisedCapture(camera.open, label, Supervision(Backoff(), own, draw))
        self._coming = self._frames(camera)
        self._next: Frame | None = None
        self._newest: Frame | None = None
        self._over = False
        self._captured = self._dropped = 0

    def read(self) -> Frame | None:
        while (frame := self.poll()) is None and not self.ended:
            self._clock.wait(self._stopping, 60.0)
        return frame

    def poll(self) -> Frame | None:
        self._catch_up()
        frame, self._newest = self._newest, None
        self.ended = frame is None and (self._over or self._stopping.is_set())
        return frame

    def stop(self) -> None:
        self._stopping.set()

    def counts(self) -> SourceCounts:
        return SourceCounts(self._captured, self._dropped, self._supervised.corrupt, self._supervised.reconnects)

    def close(self) -> None:
        self._stopping.set()

    def _frames(self, camera: ReplayCamera) -> Iterator[Frame]:
        frames = self._supervised.frames(camera, self._stopping)
        for index, (image, moment) in enumerate(frames):
            yield Frame(image, index, moment, self.name, self._own.monotonic())

    def _catch_up(self) -> None:
        """Lets the camera run to the consumer's time; the clock is told when the frame after that comes."""
        now = self._clock.monotonic()
        while not self._over and not self._stopping.is_set():
            if self._next is None:
                self._next = next(self._coming, None)
            if self._next is None:
                self._over = True
                return
            arrived = self._own.monotonic() if self._next.arrived is None else self._next.arrived
            if arrived > now:
                self._clock.wake_at(arrived)
                return
            self._captured += 1
            self._dropped += self._newest is not None
            self._newest, self._next = self._next, None


def clock_jumps(scenario: Scenario) -> list[tuple[float, float]]:
    """Moment and seconds of each jump of the wall clock."""
    return [(trouble.window.start, trouble.seconds) for trouble in scenario.of("clock")]
