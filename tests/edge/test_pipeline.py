from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from servers import until

from edge.analyze import FaceAnalyzer
from edge.errors import EngineError, InputError, SourceError
from edge.gallery import Binding, Gallery
from edge.pipeline import Pipeline, PipelineOptions, Stream
from edge.sinks import VideoFileSink
from edge.sources import Source, SourceCounts, SourceOptions, open_source, open_sources, parse_names
from edge.tracking import Pacing, Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import Frame, FrameResult, Image

PATIENT = PipelineOptions(late_seconds=1e6)
"""Drops no frame of a live source, however long a busy machine takes to come to it."""


class Kept:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.results: list[FrameResult] = []
        self.closed = 0

    def write(self, result: FrameResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def gallery(toy: Any, tmp_path: Path) -> Gallery:
    """Persons 1 and 2 are known."""
    with FaceAnalyzer(toy.bundle) as analyzer:
        made = Gallery.create(tmp_path / "g", Binding.of(analyzer.embedder_variant))
        for person in (1, 2):
            image = toy.scene(160, 160, [(person, 48, 48)])
            made.add(f"p{person}", analyzer.embed(analyzer.align(image, analyzer.detect(image))), ["portrait"])
    return made


@pytest.fixture
def video(toy: Any, tmp_path: Path) -> Path:
    """30 frames: 1 walks right, 2 comes at frame 10, a stranger, 3, at frame 20."""
    frames = []
    for i in range(30):
        people = [(1, 10 + 3 * i, 20)]
        people += [(2, 300 - 2 * i, 150)] if i >= 10 else []
        people += [(3, 150, 90)] if i >= 20 else []
        frames.append(toy.scene(400, 240, people))
    return toy.write_video(tmp_path / "walk.mp4", frames)


@pytest.fixture
def read(video: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Image, Image]]:
    """What OpenCV gives of the video, each image with a copy of its pixels."""
    given: list[tuple[Image, Image]] = []

    class Watched:
        def __init__(self, *what: Any) -> None:
            self._capture, self._of_video = original(*what), what[0] == str(video)

        def read(self) -> Any:
            done, image = self._capture.read()
            if done and self._of_video:
                given.append((image, image.copy()))
            return done, image

        def __getattr__(self, name: str) -> Any:
            return getattr(self._capture, name)

    original = cv2.VideoCapture
    monkeypatch.setattr("cv2.VideoCapture", Watched)
    return given


@pytest.mark.parametrize("realtime", [False, True])
def test_what_the_capture_read_is_what_reaches_the_sink_and_nothing_was_drawn_on_it(
    toy: Any, gallery: Gallery, video: Path, read: list[tuple[Image, Image]], realtime: bool
) -> None:
    kept = Kept()
    with FaceAnalyzer(toy.bundle) as analyzer, open_source(str(video), SourceOptions(realtime=realtime)) as source:
        assert source.live == realtime
        sinks = [VideoFileSink(video.with_name("drawn.mp4"), source.fps), kept]
        tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold)))
        Pipeline([analyzer], gallery.snapshot, toy.threshold, sinks).run_streams([Stream(source, tracker)])
    assert len(read) == 30
    assert len(kept.results) == 30 or realtime
    assert any(result.decisions for result in kept.results)
    for result in kept.results:
        image, pixels = read[result.frame.index]
        assert result.frame.image is image, "the very array, not one that holds the same"
        np.testing.assert_array_equal(image, pixels)


def test_everybody_is_named_where_they_are_and_the_stranger_is_unknown(toy: Any, gallery: Gallery, video: Path) -> None:
    kept = Kept()
    with FaceAnalyzer(toy.bundle) as analyzer, open_source(str(video)) as source:
        summary = Pipeline([analyzer], gallery.snapshot, toy.threshold, [kept]).run(source)
    assert [result.frame.index for result in kept.results] == list(range(30))
    for i, result in enumerate(kept.results):
        named = {decision.match.identity: decision.face.box for decision in result.decisions}
        assert len(result.decisions) == 1 + (i >= 10) + (i >= 20)
        np.testing.assert_allclose(named["p1"][:2], [10 + 3 * i, 20], atol=9)
        if i >= 10:
            np.testing.assert_allclose(named["p2"][:2], [300 - 2 * i, 150], atol=9)
        if i >= 20:
            np.testing.assert_allclose(named[None][:2], [150, 90], atol=9)
    assert kept.closed == 1
    assert {name: seen.frames for name, seen in summary.people.items()} == {"p1": 30, "p2": 20}
    assert (summary.frames, summary.faces, summary.unknown) == (30, 60, 10)
    for stage in ("detect", "align", "embed", "match"):
        assert summary.stages[stage].count == 30
        assert kept.results[-1].decisions[0].latency_ms[stage] > 0


def test_who_is_enrolled_during_a_run_is_known_from_the_next_frame(toy: Any, gallery: Gallery, video: Path) -> None:
    class EnrolsAtFrame25(Kept):
        def write(self, result: FrameResult) -> None:
            super().write(result)
            if result.frame.index == 25:
                with Gallery.open(gallery.path) as other, FaceAnalyzer(toy.bundle) as analyzer:
                    image = toy.scene(160, 160, [(3, 40, 40)])
                    other.add("p3", analyzer.embed(analyzer.align(image, analyzer.detect(image))), ["now"])

    kept = EnrolsAtFrame25()
    with FaceAnalyzer(toy.bundle) as analyzer, open_source(str(video)) as source:
        Pipeline([analyzer], gallery.snapshot, toy.threshold, [kept]).run(source)
    named = [{decision.match.identity for decision in result.decisions} for result in kept.results]
    assert all("p3" not in names for names in named[:26])
    assert all("p3" in names for names in named[26:])


def test_a_run_ends_at_its_limit_or_when_it_is_stopped(toy: Any, gallery: Gallery, video: Path) -> None:
    with FaceAnalyzer(toy.bundle) as analyzer:
        with open_source(str(video)) as source:
            assert Pipeline([analyzer], gallery.snapshot, 0.5).run(source, max_frames=7).frames == 7
        with open_source(str(video)) as source:

            class Stops(Kept):
                def write(self, result: FrameResult) -> None:
                    super().write(result)
                    if result.frame.index == 4:
                        source.stop()

            kept = Stops()
            assert Pipeline([analyzer], gallery.snapshot, 0.5, [kept]).run(source).frames == 5
            assert kept.closed == 1


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("tracked", [False, True])
def test_workers_change_nothing_but_the_time(
    toy: Any, gallery: Gallery, video: Path, workers: int, tracked: bool
) -> None:
    def events(count: int) -> list[list[Any]]:
        kept = Kept()
        with ExitStack() as opened:
            analyzers = [opened.enter_context(FaceAnalyzer(toy.bundle)) for _ in range(count)]
            source = opened.enter_context(open_source(str(video)))
            tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold))) if tracked else None
            Pipeline(analyzers, gallery.snapshot, toy.threshold, [kept], tracker).run(source)
        return [
            [(result.frame.index, d.match.identity, d.face.box.tolist()) for d in result.decisions]
            for result in kept.results
        ]

    alone, together = events(1), events(workers)
    assert [[entry[::2] for entry in frame] for frame in together] == [[e[::2] for e in frame] for frame in alone]
    if tracked:
        # Frames under way have not yet heard of a decision; the decision is the same.
        assert [sorted(map(str, (e[1] for e in frame))) for frame in together[-5:]] == [["None", "p1", "p2"]] * 5
        assert events(workers) == together
    else:
        assert together == alone


def test_tracking_embeds_less_and_never_flickers(toy: Any, gallery: Gallery, video: Path) -> None:
    kept = Kept()
    with FaceAnalyzer(toy.bundle) as analyzer, open_source(str(video)) as source:
        tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold)))
        Pipeline([analyzer], gallery.snapshot, toy.threshold, [kept], tracker).run(source)
    by_track: dict[int, list[str | None]] = {}
    for result in kept.results:
        for decision in result.decisions:
            assert decision.track is not None
            by_track.setdefault(decision.track.number, []).append(decision.match.identity)
    # Not yet, at the first looks; then one name to the end.
    assert {number: [*dict.fromkeys(names)] for number, names in by_track.items()} == {
        1: [None, "p1"],
        2: [None, "p2"],
        3: [None],
    }
    assert by_track[1].index("p1") <= 3
    assert by_track[1][-20:] == ["p1"] * 20
    looked = sum(decision.look is not None for result in kept.results for decision in result.decisions)
    assert looked < 30


@pytest.mark.parametrize("workers", [1, 2])
def test_frames_between_searches_show_people_where_they_have_moved_to(
    toy: Any, gallery: Gallery, tmp_path: Path, workers: int
) -> None:
    # Whole cells of the toy detector a frame, so that its boxes are exact; a cut at frame 24.
    def frame(i: int) -> np.ndarray:
        scene = toy.scene(480, 240, [(1, 8 * i, 24), (2, 400 - 8 * i, 152)] if i < 24 else [(1, 200, 80)])
        return scene if i < 24 else np.where(scene == 128, 20, scene).astype(np.uint8)

    video = toy.write_video(tmp_path / "v.mp4", [frame(i) for i in range(30)])
    kept = Kept()
    with ExitStack() as opened:
        analyzers = [opened.enter_context(FaceAnalyzer(toy.bundle)) for _ in range(workers)]
        source = opened.enter_context(open_source(str(video)))
        tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold)))
        summary = Pipeline(analyzers, gallery.snapshot, toy.threshold, [kept], tracker, search_every=3).run(source)
    assert summary.stages["detect"].count <= 21
    coasted = 0
    for i, result in enumerate(kept.results[:24]):
        assert len(result.decisions) == 2
        for decision in result.decisions:
            assert decision.track is not None
            coasted += not decision.track.detected
            person = {"p1": (8 * i, 24), "p2": (400 - 8 * i, 152)}.get(decision.match.identity or "")
            if person is not None:
                np.testing.assert_allclose(decision.face.box[:2], person, atol=9)
                middle = decision.face.landmarks.mean(axis=0)
                np.testing.assert_allclose(middle, np.add(person, 34), atol=12)
    assert coasted >= 16
    (after,) = kept.results[24].decisions
    assert after.track is not None
    assert after.track.detected
    np.testing.assert_allclose(after.face.box[:2], [200, 80], atol=9)


def test_sinks_are_closed_when_one_of_them_fails(toy: Any, gallery: Gallery, video: Path) -> None:
    class Fails(Kept):
        def write(self, result: FrameResult) -> None:
            raise InputError("disk full")

    first, failing, last = Kept(), Fails(), Kept()
    with (
        FaceAnalyzer(toy.bundle) as analyzer,
        open_source(str(video)) as source,
        pytest.raises(InputError, match="disk full"),
    ):
        Pipeline([analyzer], gallery.snapshot, 0.5, [first, failing, last]).run(source)
    assert (first.closed, failing.closed, last.closed) == (1, 1, 1)


class Camera(Source):
    """A live source that gives what a test puts in, and says so."""

    live, length, fps = True, None, 25.0

    def __init__(self, name: str) -> None:
        self.name = name
        self._frames: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None
        self._index = 0

    def put(self, image: Any, arrived: float | None = None) -> None:
        self._frames.put((image, time.monotonic() if arrived is None else arrived))
        self._wake()

    def read(self) -> Frame | None:
        raise NotImplementedError("a pipeline polls")

    def poll(self) -> Frame | None:
        try:
            image, arrived = self._frames.get_nowait()
        except queue.Empty:
            return None
        if isinstance(image, Exception):
            raise image
        self.ended = image is None
        self._index += 1
        return None if image is None else Frame(image, self._index - 1, time.time(), self.name, arrived)

    def listen(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def stop(self) -> None:
        self.put(None)

    def counts(self) -> SourceCounts:
        return SourceCounts(self._index)

    def close(self) -> None:
        return


class TestSeveralSources:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_each_has_its_own_people_its_own_tracks_and_its_frames_in_order(
        self, toy: Any, gallery: Gallery, tmp_path: Path, workers: int
    ) -> None:
        paths = [
            toy.write_video(
                tmp_path / f"{n}.mp4", [toy.scene(400, 240, [(n, 300 - 2 * i, 150)]) for i in range(length)]
            )
            for n, length in ((1, 12), (2, 20))
        ]
        kept, own = Kept(), [Kept(), Kept()]
        with ExitStack() as opened:
            analyzers = [opened.enter_context(FaceAnalyzer(toy.bundle)) for _ in range(workers)]
            sources = open_sources(parse_names([f"one={paths[0]}", f"two={paths[1]}"]))
            streams = [
                Stream(
                    opened.enter_context(source),
                    Tracker(TrackerOptions(EvidenceOptions(toy.threshold))),
                    sinks=[sink],
                )
                for source, sink in zip(sources, own, strict=True)
            ]
            summary = Pipeline(analyzers, gallery.snapshot, toy.threshold, [kept]).run_streams(streams)
        for name, person, length, alone in (("one", "p1", 12, own[0]), ("two", "p2", 20, own[1])):
            mine = [result for result in kept.results if result.frame.source == name]
            assert [result.frame.index for result in mine] == list(range(length))
            assert alone.results == mine
            assert {d.track.number for result in mine for d in result.decisions if d.track} == {1}
            assert {d.source for result in mine for d in result.decisions} == {name}
            assert set(summary.of(name).people) == {person}
            assert alone.closed == 1
        assert summary.frames == 32
        # Neither waits for the other to end.
        assert {result.frame.source for result in kept.results[:8]} == {"one", "two"}

    @pytest.mark.parametrize("workers", [1, 2])
    def test_one_that_dies_and_one_that_stalls_hold_nobody_up(
        self, toy: Any, gallery: Gallery, workers: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        well, silent, dying = Camera("well"), Camera("silent"), Camera("dying")
        scene = toy.scene(160, 160, [(1, 48, 48)])

        class Feeds(Kept):
            def write(self, result: FrameResult) -> None:
                super().write(result)
                if len(self.results) == 30:
                    silent.stop()
                    well.stop()
                else:
                    well.put(scene)

        kept = Feeds()
        dying.put(scene)
        dying.put(SourceError("dying: unplugged"))
        with ExitStack() as opened:
            analyzers = [opened.enter_context(FaceAnalyzer(toy.bundle)) for _ in range(workers)]
            streams = [Stream(source) for source in (silent, dying, well)]
            well.put(scene)
            summary = Pipeline(analyzers, gallery.snapshot, toy.threshold, [kept], options=PATIENT).run_streams(streams)
        assert summary.of("well").frames >= 29
        assert (summary.of("dying").frames, summary.of("silent").frames) == (1, 0)
        assert summary.errors == {"dying": "dying: unplugged"}
        assert "dying: unplugged; the other sources go on" in caplog.text

    def test_a_worker_that_is_free_goes_round_the_cameras(self, toy: Any, gallery: Gallery) -> None:
        begun, taken, gate = [], [], threading.Semaphore(0)

        class Gated(FaceAnalyzer):
            def detect(self, image: Any) -> Any:
                begun.append(1)
                gate.acquire()
                return super().detect(image)

        class Noted(Camera):
            def poll(self) -> Frame | None:
                frame = super().poll()
                if frame is not None:
                    taken.append(self.name)
                return frame

        cameras = [Noted(name) for name in "abc"]
        for camera in cameras:
            for _ in range(12):
                camera.put(toy.scene(96, 96, []))
        with Gated(toy.bundle) as first, Gated(toy.bundle) as second:
            known = gallery.snapshot()
            pipeline = Pipeline([first, second], lambda: known, 0.5, options=PATIENT)
            streams = [Stream(camera) for camera in cameras]
            thread = threading.Thread(target=pipeline.run_streams, args=(streams,))
            thread.start()
            try:
                for under_way in range(2, 14):
                    until(lambda count=under_way: len(begun) == count)  # type: ignore[misc]
                    gate.release()
            finally:
                for camera in cameras:
                    camera.stop()
                gate.release(99)
                thread.join()
        assert "".join(taken[:12]) == "abcabcabcabc"

    def test_where_all_die_the_first_error_is_raised(self, toy: Any, gallery: Gallery) -> None:
        one, two = Camera("one"), Camera("two")
        two.put(SourceError("two: gone"))
        one.put(SourceError("one: gone"))
        with FaceAnalyzer(toy.bundle) as analyzer, pytest.raises(SourceError, match="one: gone"):
            Pipeline([analyzer], gallery.snapshot, 0.5).run_streams([Stream(one), Stream(two)])


def test_a_live_frame_whose_turn_comes_too_late_is_dropped_and_counted(toy: Any, gallery: Gallery) -> None:
    camera, kept = Camera("cam"), Kept()
    scene = toy.scene(160, 160, [(1, 48, 48)])
    for age in (0.0, 3000.0, 0.0):
        camera.put(scene, time.monotonic() - age)
    camera.put(None)
    with FaceAnalyzer(toy.bundle) as analyzer:
        options = PipelineOptions(late_seconds=1000.0)
        summary = Pipeline([analyzer], gallery.snapshot, 0.5, [kept], options=options).run(camera)
    assert [result.frame.index for result in kept.results] == [0, 2]
    assert summary.of("cam").late == 1


def test_a_live_source_has_no_more_frames_under_way_than_workers_can_begin(toy: Any, gallery: Gallery) -> None:
    camera = Camera("cam")
    begun, release = [], threading.Event()

    class Slow(FaceAnalyzer):
        def detect(self, image: Any) -> Any:
            begun.append(1)
            release.wait(60)
            return super().detect(image)

    for _ in range(10):
        camera.put(toy.scene(96, 96, [(1, 16, 16)]))
    with Slow(toy.bundle) as first, Slow(toy.bundle) as second:
        known = gallery.snapshot()
        pipeline = Pipeline([first, second], lambda: known, 0.5, options=PATIENT)
        thread = threading.Thread(target=pipeline.run, args=(camera,))
        thread.start()
        until(lambda: len(begun) == 2)
        time.sleep(0.2)
        assert camera.counts().frames == 2
        release.set()
        camera.put(None)
        thread.join()
    assert pipeline.summary.frames == 10


def test_a_camera_goes_on_where_a_sink_fails_for_a_while_but_not_where_it_never_worked(
    toy: Any, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Kept):
        def __init__(self, at: range) -> None:
            super().__init__()
            self.at = at

        def write(self, result: FrameResult) -> None:
            if result.frame.index in self.at:
                raise InputError("events: disk full")
            super().write(result)

    def run(sink: Fails) -> None:
        camera = Camera("cam")
        for _ in range(6):
            camera.put(toy.scene(96, 96, []))
        camera.put(None)
        with FaceAnalyzer(toy.bundle) as analyzer:
            Pipeline([analyzer], gallery.snapshot, 0.5, [sink], options=PATIENT).run(camera)

    passing = Fails(range(2, 4))
    run(passing)
    assert [result.frame.index for result in passing.results] == [0, 1, 4, 5]
    assert "events: disk full; going on without" in caplog.text
    assert "events: takes results again; 2 were lost so far" in caplog.text
    never = Fails(range(9))
    with pytest.raises(InputError, match="disk full"):
        run(never)
    assert never.closed == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_an_engine_error_on_a_frame_of_a_file_costs_that_frame_only(
    toy: Any, gallery: Gallery, video: Path, workers: int
) -> None:
    count = 0
    lock = threading.Lock()

    class Third(FaceAnalyzer):
        def detect(self, image: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                mine = count
            if mine % 3 == 0:
                raise EngineError("out of memory")
            return super().detect(image)

    kept = Kept()
    with ExitStack() as opened:
        analyzers = [opened.enter_context(Third(toy.bundle)) for _ in range(workers)]
        source = opened.enter_context(open_source(str(video)))
        summary = Pipeline(analyzers, gallery.snapshot, toy.threshold, [kept]).run(source)
    assert summary.of(str(video)).failed == 10
    indices = [result.frame.index for result in kept.results]
    assert len(indices) == 20
    assert indices == sorted(indices)


def test_pacing_searches_seldom_while_expectations_hold_and_at_once_when_they_do_not() -> None:
    def searched(agreements: Sequence[float], longest: int) -> list[int]:
        pacing, frames = Pacing(longest), []
        for frame, agreement in enumerate(agreements):
            if pacing.due(settled=True):
                frames.append(frame)
                pacing.saw(agreement)
        return frames

    assert searched([0.9] * 12, 1) == list(range(12))
    assert searched([0.9] * 14, 4) == [0, 2, 5, 9, 13]
    assert searched([0.9] * 5 + [0.1] * 3 + [0.9] * 6, 4) == [0, 2, 5, 6, 7, 8, 10, 13]
    pacing = Pacing(4)
    for _ in range(10):
        if pacing.due(settled=True):
            pacing.saw(0.9)
    pacing.restart()  # a cut: searched out of turn, and the next search is counted from here
    pacing.saw(0.9)
    assert [pacing.due(settled=True) for _ in range(2)] == [False, True]
    pacing = Pacing(4)
    assert [pacing.due(settled=False) for _ in range(4)] == [True] * 4
