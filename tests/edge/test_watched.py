"""Captures that hang in their driver: waited for so long and no longer, and closed when it lets go."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge.errors import SourceError
from edge.sources.backoff import Backoff
from edge.sources.capture import CorruptFrame, EndOfStream, has_gstreamer, open_pipeline
from edge.sources.gstreamer import CsiOptions, csi_pipeline
from edge.sources.live import LiveSource
from edge.sources.supervision import Supervision
from edge.sources.watched import MOST_LEFT, WatchedCapture
from edge.types import Picture

PICTURE = np.zeros((4, 6, 3), np.uint8)


class Driver:
    """Gives `frames` frames, then `ending`; or hangs until it is let go."""

    fps, length = 30.0, 7

    def __init__(self, frames: int, ending: Exception | None = None) -> None:
        self.let_go, self.closed = threading.Event(), threading.Event()
        self._left, self._ending = frames, ending

    def read(self) -> tuple[Picture, float]:
        if self._left == 0:
            if self._ending is not None:
                raise self._ending
            self.let_go.wait()
        self._left -= 1
        return PICTURE, 3.0

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("ending", [EndOfStream(), CorruptFrame(), SourceError("c: gone")])
def test_what_a_capture_gives_comes_through(ending: Exception) -> None:
    driver = Driver(2, ending)
    watched = WatchedCapture(lambda: driver, "c")
    assert (watched.fps, watched.length) == (30.0, 7)
    assert watched.read() == (PICTURE, 3.0)
    assert watched.read() == (PICTURE, 3.0)
    with pytest.raises(type(ending)):
        watched.read()
    watched.close()
    assert driver.closed.is_set()


def test_what_cannot_be_opened_says_why() -> None:
    def open_capture() -> Driver:
        raise SourceError("c: cannot be opened")

    with pytest.raises(SourceError, match="c: cannot be opened"):
        WatchedCapture(open_capture, "c")


def test_a_frame_that_does_not_come_is_waited_for_so_long() -> None:
    driver = Driver(1)
    watched = WatchedCapture(lambda: driver, "hanging", reading=0.05)
    watched.read()
    with pytest.raises(SourceError, match=r"hanging: gives no frame within 0\.05 s"):
        watched.read()
    watched.close()
    assert not driver.closed.is_set()
    driver.let_go.set()
    assert driver.closed.wait(60), "nobody closed it when it could be"


def test_an_opening_that_hangs_is_closed_when_it_is_over() -> None:
    driver, opens = Driver(1), threading.Event()

    def open_capture() -> Driver:
        opens.wait()
        return driver

    with pytest.raises(SourceError, match=r"does not open within 0\.05 s"):
        WatchedCapture(open_capture, "late", opening=0.05)
    opens.set()
    assert driver.closed.wait(60)


def test_no_more_than_some_are_left_behind() -> None:
    drivers = [Driver(0) for _ in range(MOST_LEFT)]
    opened = iter(drivers)
    for _ in drivers:
        watched = WatchedCapture(lambda: next(opened), "stuck", reading=0.01)
        with pytest.raises(SourceError, match="gives no frame"):
            watched.read()
        watched.close()
    with pytest.raises(SourceError, match="stuck: its driver hangs"):
        WatchedCapture(lambda: Driver(1), "stuck")
    WatchedCapture(lambda: Driver(1), "another").close()
    for driver in drivers:
        driver.let_go.set()
        assert driver.closed.wait(60)


def test_a_camera_that_hangs_is_opened_again() -> None:
    drivers = [Driver(3), Driver(4, EndOfStream())]
    opened = iter(drivers)
    source = LiveSource(
        lambda: WatchedCapture(lambda: next(opened), "camera", reading=0.05),
        "camera",
        Supervision(backoff=Backoff(first=0.01, longest=0.02)),
    )
    while source.read() is not None:
        pass
    source.close()
    assert source.counts().frames == 7
    assert source.counts().reconnects == 1
    drivers[0].let_go.set()
    assert drivers[0].closed.wait(60)


@pytest.mark.skipif(not has_gstreamer(), reason="needs an OpenCV with GStreamer, as the system's is")
@pytest.mark.parametrize("nv12", [False, True])
def test_a_pipeline_of_a_jetson_runs_with_stand_ins_for_its_elements(nv12: bool) -> None:
    pipeline = csi_pipeline(CsiOptions(width=320, height=180), nv12=nv12)
    for element, stand_in in (
        ("nvarguscamerasrc sensor-id=0", "videotestsrc is-live=true"),
        ("(memory:NVMM)", ""),
        ("nvvidconv flip-method=0", "videoconvert"),
    ):
        assert element in pipeline
        pipeline = pipeline.replace(element, stand_in)
    watched = WatchedCapture(lambda: open_pipeline(pipeline, "csi://0", nv12=nv12), "csi://0")
    try:
        for _ in range(3):
            assert watched.read()[0].shape == (180, 320, 3)
        assert watched.fps == 30.0
    finally:
        watched.close()
