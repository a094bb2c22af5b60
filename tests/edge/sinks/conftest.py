"""Results as a camera gives them, and ports that are free."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import servers

from edge.types import Decision, Face, Frame, FrameResult, Match, TrackState, TrackView

IMAGE = np.zeros((4, 4, 3), np.uint8)
FACE = Face(np.array([1, 2, 3, 4], np.float32), np.zeros((5, 2), np.float32), 0.9)

Seen = tuple[int, TrackState, str | None]
"""Number of the track, its state, who it is."""

Looks = Callable[..., FrameResult]


@pytest.fixture(scope="session")
def looks() -> Looks:
    """Makes the result of a frame at a time, with people by track: looks(3.0, (1, "known", "ada"))."""

    def make(moment: float, *people: Seen, source: str = "door", tracked: bool = True) -> FrameResult:
        index = round(moment * 25)
        frame = Frame(IMAGE, index, moment, source)
        decisions = tuple(
            Decision(
                index,
                moment,
                source,
                FACE,
                Match(name, 0.6 + number / 100, 0.4, name or "ada"),
                track=TrackView(number, state, 3, moment - 0.5) if tracked else None,
            )
            for number, state, name in people
        )
        return FrameResult(frame, decisions)

    return make


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    return servers.free_port()


@pytest.fixture(autouse=True)
def nobody_is_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends with a run is given a minute: what a busy machine does not do in time would be dropped."""
    monkeypatch.setattr("edge.sinks.network.SPOOL_SECONDS", 60.0)
    monkeypatch.setattr("edge.sinks.network.NETWORK_SECONDS", 60.0)
