from __future__ import annotations

import http.server
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rtsp import RtspCamera

from edge.clock import SimulatedClock
from edge.errors import InputError, SourceError
from edge.sources import SourceName, SourceOptions, file_of, open_source, open_sources, parse_names
from edge.sources.backoff import Backoff
from edge.sources.base import without_password
from edge.sources.capture import CorruptFrame, EndOfStream
from edge.sources.gstreamer import CsiOptions, csi_pipeline, rtsp_pipeline
from edge.sources.live import LiveSource
from edge.sources.supervision import MAX_CORRUPT_RUN, SupervisedCapture, Supervision


def shade(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


class Script:
    """A capture that plays steps: an image, an exception to raise, or a wait until a test says go."""

    fps, length = 25.0, 0

    def __init__(self, steps: list[Any]) -> None:
        self._steps = iter(steps)
        self.closed = False

    def read(self) -> tuple[np.ndarray, float]:
        step = next(self._steps, EndOfStream())
        if isinstance(step, threading.Event):
            assert step.wait(60)
            step = next(self._steps, EndOfStream())
        if isinstance(step, BaseException):
            raise step
        return step, time.time()

    def close(self) -> None:
        self.closed = True


QUICK = Backoff(first=0.01, longest=0.05)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


class TestFiles:
    def test_every_frame_of_a_video_comes_once_with_its_time(self, toy: Any, tmp_path: Path) -> None:
        frames = [shade(8 * i) for i in range(20)]
        video = toy.write_video(tmp_path / "v.mp4", frames, fps=10)
        with open_source(str(video)) as source:
            assert (source.live, source.length, source.fps) == (False, 20, 10)
            seen = list(source)
        assert [frame.index for frame in seen] == list(range(20))
        np.testing.assert_allclose([frame.time for frame in seen], np.arange(20) / 10, atol=0.011)
        np.testing.assert_allclose([frame.image.mean() for frame in seen], [f.mean() for f in frames], atol=4)

    def test_pictures_come_in_order_and_a_broken_one_is_left_out(self, toy: Any, tmp_path: Path) -> None:
        for i in range(3):
            cv2.imwrite(str(tmp_path / f"{i}.png"), shade(i))
        (tmp_path / "1.png").write_bytes(b"broken")
        with open_source(str(tmp_path)) as source:
            seen = list(source)
            assert [(frame.index, int(frame.image[0, 0, 0])) for frame in seen] == [(0, 0), (2, 2)]
            assert (seen[1].source, seen[1].picture) == (str(tmp_path), str(tmp_path / "2.png"))
            assert (source.counts().frames, source.counts().corrupt) == (2, 1)
        with open_source(str(tmp_path / "2.png")) as one:
            assert len(list(one)) == 1

    def test_realtime_takes_the_time_it_takes_and_drops_what_comes_too_late(self, toy: Any, tmp_path: Path) -> None:
        video = toy.write_video(tmp_path / "v.mp4", [shade(8 * i) for i in range(20)], fps=40)
        started = time.monotonic()
        with open_source(str(video), SourceOptions(realtime=True)) as source:
            seen = []
            for frame in source:
                seen.append(frame.index)
                time.sleep(0.06)
            counts = source.counts()
        assert time.monotonic() - started >= 19 / 40
        assert counts.frames == 20
        assert counts.dropped == 20 - len(seen) > 0
        assert seen == sorted(set(seen))

    def test_stop_ends_a_file_early(self, toy: Any, tmp_path: Path) -> None:
        video = toy.write_video(tmp_path / "v.mp4", [shade(0)] * 9)
        with open_source(str(video)) as source:
            assert source.read() is not None
            source.stop()
            assert source.read() is None


class TestLive:
    def test_a_slow_consumer_gets_the_newest_frame_and_the_rest_are_counted(self) -> None:
        end = threading.Event()
        with LiveSource(lambda: Script([*(shade(i) for i in range(10)), end]), "cam") as source:
            wait_for(lambda: source.counts().frames == 10)
            frame = source.read()
            assert frame is not None
            assert (frame.index, int(frame.image[0, 0, 0])) == (9, 9)
            assert source.counts().dropped == 9
            end.set()
            assert source.read() is None

    def test_a_lost_stream_is_opened_again_and_failed_attempts_are_borne(self, caplog: Any) -> None:
        go, end = threading.Event(), threading.Event()
        captures: list[Any] = [
            Script([shade(1), go, SourceError("cam: gives no frame")]),
            SourceError("cam: not there"),
            SourceError("cam: not there"),
            Script([shade(2), end]),
        ]
        opened = []

        def open_capture() -> Script:
            step = captures.pop(0)
            opened.append(step)
            if isinstance(step, Exception):
                raise step
            return step

        with LiveSource(open_capture, "cam", Supervision(QUICK)) as source:
            first = source.read()
            go.set()
            second = source.read()
            assert first is not None
            assert second is not None
            assert (int(first.image[0, 0, 0]), int(second.image[0, 0, 0])) == (1, 2)
            assert second.index == 1
            assert source.counts().reconnects == 1
            assert opened[0].closed
            end.set()
        assert [record.message.split(";")[0].split(" after")[0] for record in caplog.records] == [
            "cam: gives no frame",
            "cam: back",
        ]

    @pytest.mark.parametrize("nothing", [SourceError("cam: gives no frame"), CorruptFrame()])
    def test_a_stream_that_opens_and_gives_nothing_has_not_come_back(
        self, nothing: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, opened = SimulatedClock(), []

        def open_capture() -> Script:
            opened.append(clock.monotonic())
            return Script([shade(2)] if clock.monotonic() > 3600 else [nothing] * MAX_CORRUPT_RUN)

        supervised = SupervisedCapture(open_capture, "cam", Supervision(Backoff(jitter=0.0), clock))
        first = Script([shade(1), SourceError("cam: gives no frame")])
        shades = [int(image[0, 0, 0]) for image, _ in supervised.frames(first, threading.Event())]
        assert shades == [1, 2]
        assert opened[:8] == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5]
        assert max(np.diff(opened)) == 30.0
        assert supervised.reconnects == 1
        assert [record.message for record in caplog.records] == [
            "cam: gives no frame; trying again",
            f"cam: back after {opened[-1]:.1f} s",
        ]

    def test_one_that_gives_a_frame_and_dies_is_tried_ever_more_seldom(self) -> None:
        clock, opened = SimulatedClock(), []

        def open_capture() -> Script:
            opened.append(clock.monotonic())
            return Script([shade(1), SourceError("cam: gives no frame")] if len(opened) < 9 else [])

        supervised = SupervisedCapture(open_capture, "cam", Supervision(Backoff(jitter=0.0), clock))
        assert len(list(supervised.frames(None, threading.Event()))) == 8
        assert opened == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5, 121.5]
        # What was waited for at the start was never lost; what ended before a frame has not come back.
        assert supervised.reconnects == 7

    def test_after_half_a_minute_of_frames_it_is_tried_soon_again(self) -> None:
        clock, opened, never = SimulatedClock(), [], threading.Event()

        def open_capture() -> Script:
            opened.append(clock.monotonic())
            return Script([shade(len(opened)), SourceError("cam: gives no frame")] if len(opened) < 5 else [])

        supervised = SupervisedCapture(open_capture, "cam", Supervision(Backoff(jitter=0.0), clock))
        for image, _ in supervised.frames(None, threading.Event()):
            clock.wait(never, 30 if image[0, 0, 0] in (2, 3) else 29)
        assert np.diff(opened).tolist() == [29 + 1, 30 + 0.5, 30 + 0.5, 29 + 1]

    def test_corrupt_frames_are_survived_and_too_many_in_a_row_are_a_loss(self) -> None:
        captures = [
            Script([CorruptFrame(), shade(3), *[CorruptFrame()] * MAX_CORRUPT_RUN, shade(99)]),
            Script([shade(4)]),
        ]
        with LiveSource(lambda: captures.pop(0), "cam", Supervision(QUICK)) as source:
            seen = [int(frame.image[0, 0, 0]) for frame in source]
            assert 99 not in seen
            assert seen[-1] == 4
            assert source.counts().corrupt == 1 + MAX_CORRUPT_RUN
            assert source.counts().reconnects == 1

    def test_what_never_worked_is_the_users_mistake_at_once(self) -> None:
        def refuse() -> Script:
            raise SourceError("cam: cannot be opened")

        with pytest.raises(SourceError, match="cannot be opened"):
            LiveSource(refuse, "cam")

    def test_a_camera_that_is_waited_for_has_its_own_rate_once_it_is_there(self) -> None:
        camera = Script([shade(1)])
        camera.fps = 12.5
        with LiveSource(lambda: camera, "cam", Supervision(QUICK), patient=True) as source:
            assert source.read() is not None
            assert source.fps == 12.5

    def test_a_bug_in_the_capture_thread_reaches_the_reader(self) -> None:
        source = LiveSource(lambda: Script([ZeroDivisionError("a bug")]), "cam")
        with pytest.raises(ZeroDivisionError, match="a bug"):
            source.read()
        source.close()

    def test_stop_wakes_a_reader_that_waits(self) -> None:
        never = threading.Event()
        source = LiveSource(lambda: Script([never]), "cam")
        threading.Timer(0.1, source.stop).start()
        started = time.monotonic()
        assert source.read() is None
        assert time.monotonic() - started < 30, "half of what the script waits"
        never.set()
        source.close()


def test_waits_grow_to_their_bound_and_are_spread() -> None:
    backoff = Backoff(first=1, factor=2, longest=10, jitter=0.5)
    delays = list(islice(backoff.delays(random.Random(1)), 200))
    bounds = [1, 2, 4, 8, *[10] * 196]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(delays, bounds, strict=True))
    assert np.std(delays[4:]) > 1
    with pytest.raises(ValueError, match="back-off"):
        Backoff(first=5, longest=1)


class Camera:
    """A network camera: Motion-JPEG over HTTP on the loopback, which can be switched off and on again."""

    def __init__(self) -> None:
        self.value = 50
        self.damage: Callable[[int, bytes], bytes] = lambda _, data: data
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0

    def on(self) -> None:
        camera, running = self, threading.Event()
        running.set()
        self._running = running

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                try:
                    while running.is_set():
                        data = cv2.imencode(".jpg", np.full((120, 160, 3), camera.value, np.uint8))[1].tobytes()
                        data, number = camera.damage(number, data), number + 1
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        time.sleep(0.02)
                except OSError:
                    return

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def off(self) -> None:
        assert self._server is not None
        self._running.clear()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    made.on()
    yield made
    made.off()


def test_a_network_camera_that_goes_away_and_comes_back_is_followed(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sources.live.Supervision", lambda: Supervision(QUICK))
    with open_source(f"http://user:secret@127.0.0.1:{camera.port}/mjpeg") as source:
        assert source.live
        assert source.name == f"http://127.0.0.1:{camera.port}/mjpeg"
        first = source.read()
        assert first is not None
        assert first.image.mean() == pytest.approx(50, abs=3)
        assert abs(first.time - time.time()) < 5
        camera.off()
        camera.value = 200
        camera.on()
        for frame in source:
            if frame.image.mean() == pytest.approx(200, abs=3):
                break
        assert source.counts().reconnects >= 1


def test_a_frame_that_cannot_be_decoded_costs_itself_and_not_the_stream(
    camera: Camera, caplog: pytest.LogCaptureFixture
) -> None:
    camera.damage = lambda number, data: bytes(len(data)) if number % 10 in (8, 9) else data
    with open_source(f"http://127.0.0.1:{camera.port}/mjpeg") as source:
        for _ in range(60):
            frame = source.read()
            assert frame is not None
            assert frame.image.mean() == pytest.approx(50, abs=3)
        assert source.counts().corrupt >= 3
        assert source.counts().reconnects == 0
    assert "trying again" not in caplog.text


def test_a_frame_of_a_file_that_cannot_be_decoded_is_no_end_of_it(tmp_path: Path) -> None:
    video = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for value in range(0, 200, 10):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    data = bytearray(video.read_bytes())
    starts = [place for place in range(len(data)) if data[place : place + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 20
    data[starts[7] : starts[8] - 8] = bytes(starts[8] - 8 - starts[7])
    video.write_bytes(data)
    with open_source(str(video)) as source:
        assert len(list(source)) == 19
        assert source.counts().corrupt == 1


@pytest.fixture
def rtsp() -> Iterator[RtspCamera]:
    made = RtspCamera("user", "p4ssword")
    made.on()
    yield made
    made.off()


def test_an_rtsp_camera_that_is_cut_off_and_comes_back_is_followed_and_its_password_told_to_it_alone(
    rtsp: RtspCamera,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("edge.sources.live.Supervision", lambda: Supervision(QUICK))
    with open_source(f"rtsp://user:p4ssword@127.0.0.1:{rtsp.port}/live") as source:
        assert source.live
        assert source.fps == pytest.approx(50)
        first = source.read()
        assert first is not None
        assert first.image.shape == (48, 64, 3)
        assert first.image.mean() == pytest.approx(50, abs=3)
        assert abs(first.time - time.time()) < 5
        assert rtsp.seen >= 3, "DESCRIBE, SETUP and PLAY, each with the password"
        rtsp.off()
        wait_for(lambda: "gives no frame; trying again" in caplog.text)
        rtsp.value = 200
        rtsp.on()
        for frame in source:
            if frame.image.mean() == pytest.approx(200, abs=3):
                break
        assert source.counts().reconnects == 1
    wait_for(lambda: f"rtsp://127.0.0.1:{rtsp.port}/live: back after" in caplog.text)
    assert caplog.text.count("trying again") == 1
    said = caplog.text + "".join(capfd.readouterr()) + repr(first) + source.name
    assert "p4ssword" not in said
    assert "user" not in said


def test_an_rtsp_camera_that_wants_another_password_is_said_without_it(
    rtsp: RtspCamera, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match=f"rtsp://127.0.0.1:{rtsp.port}/live: cannot be opened") as caught:
        open_source(f"rtsp://user:wr0ng@127.0.0.1:{rtsp.port}/live")
    assert rtsp.seen == 0
    assert "wr0ng" not in str(caught.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.mp4", "no such file, folder or camera"),
        ("987", "no such camera"),
        ("/dev/video987", "no such camera"),
        ("/dev/null", "no camera"),
        ("gopher://x", "gopher:// is not known"),
        ("rtsp://user:secret@127.0.0.1:9/x", "nobody answers"),
        ("csi://x", "not csi://SENSOR"),
        ("rtsp://u:secret@[::1/live", "not an address"),
        ("csi://0?flip=9", "out of range"),
        ("csi://0?zoom=2", "not csi://SENSOR"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line_without_the_password(name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_video_and_pictures_in_realtime_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(SourceError, match="not a video OpenCV can read"):
        open_source(str(tmp_path / "v.mp4"))
    cv2.imwrite(str(tmp_path / "p.png"), shade(1))
    with pytest.raises(InputError, match="no speed of their own"):
        open_source(str(tmp_path / "p.png"), SourceOptions(realtime=True))


def test_nobody_waits_for_a_camera_that_does_not_answer(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sources.capture.OPEN_TIMEOUT_MS", 3000)
    video = toy.write_video(tmp_path / "v.mp4", [shade(1)] * 3)
    given_up: list[float] = []

    def ask(port: int) -> None:
        with pytest.raises(SourceError, match="cannot be opened"):
            open_source(f"http://127.0.0.1:{port}/mjpeg")
        given_up.append(time.monotonic())

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = threading.Thread(target=ask, args=silent.getsockname()[1:])
        asking.start()
        connection, _ = silent.accept()
        open_source(str(video)).close()
        toy.write_video(tmp_path / "w.mp4", [shade(1)] * 3)
        opened = time.monotonic()
        asking.join()
        connection.close()
    assert opened < given_up[0]


def test_a_video_whose_name_is_no_utf8_is_refused_and_does_not_crash_the_interpreter(toy: Any, tmp_path: Path) -> None:
    video = toy.write_video(tmp_path / "v.mp4", [shade(1)] * 3).rename(tmp_path / "v\udcff.mp4")
    with pytest.raises(SourceError, match="is not UTF-8"):
        open_source(str(video))


def test_a_picture_whose_name_is_no_utf8_is_told_of_with_what_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "f\udcff"
    folder.mkdir()
    cv2.imwrite(str(tmp_path / "p.png"), shade(1))
    (tmp_path / "p.png").rename(folder / "p\udcff.png")
    (name,) = parse_names([str(folder)])
    with open_source(name.address, label=name.label) as source:
        frame = source.read()
    assert frame is not None
    assert (frame.source, frame.picture) == (f"{tmp_path}/f\ufffd", f"{tmp_path}/f\ufffd/p\ufffd.png")


def test_jetson_pipelines_are_nvidias() -> None:
    assert csi_pipeline(CsiOptions(sensor=1, width=1920, height=1080, fps=60, flip=2)) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,framerate=60/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
    pipeline = rtsp_pipeline("rtsp://10.0.0.7/live?ch=1", latency_ms=50)
    assert pipeline.startswith(
        'rtspsrc location="rtsp://10.0.0.7/live?ch=1" protocols=tcp latency=50 ! rtph264depay ! h264parse ! nvv4l2'
    )
    for hostile in ('rtsp://x" ! filesink location="y', "rtsp://x y", "rtsp://x!y"):
        with pytest.raises(SourceError, match="percent-encoded"):
            rtsp_pipeline(hostile)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("rtsp://u:p@host:554/a?b=c", "rtsp://host:554/a?b=c"),
        ("rtsp://u:p@[::1]/a", "rtsp://[::1]/a"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host/v.cgi?loginuse=me&loginpas=p/q&rate=0", "http://host/v.cgi?loginuse=***&loginpas=***&rate=0"),
        ("http://host/v?USR=me&PWD=p_1", "http://host/v?USR=***&PWD=***"),
        (
            "rtsp://host/user=me_password=p_channel=1_stream=0.sdp",
            "rtsp://host/user=***_password=***_channel=1_stream=0.sdp",
        ),
        ("rtsp://host/cam/realmonitor?channel=1&subtype=0", "rtsp://host/cam/realmonitor?channel=1&subtype=0"),
        ("replay://day.toml", "replay://day.toml"),
        ("csi://0?width=1280", "csi://0?width=1280"),
        ("me@home.mp4", "me@home.mp4"),
    ],
)
def test_passwords_stay_out_of_names(name: str, shown: str) -> None:
    assert without_password(name) == shown


class TestNames:
    @pytest.mark.parametrize(
        ("text", "label", "address"),
        [
            ("0", "0", "0"),
            ("door=0", "door", "0"),
            ("yard=rtsp://u:p@host/live?ch=1", "yard", "rtsp://u:p@host/live?ch=1"),
            ("rtsp://u:p@host/live?ch=1", "rtsp://host/live?ch=1", "rtsp://u:p@host/live?ch=1"),
            ("/data/a=b.mp4", "/data/a=b.mp4", "/data/a=b.mp4"),
            ("back-door.2=a=b.mp4", "back-door.2", "a=b.mp4"),
        ],
    )
    def test_a_label_stands_before_the_first_equals_sign(self, text: str, label: str, address: str) -> None:
        assert SourceName.parse(text) == SourceName(label, address)

    def test_a_path_that_exists_is_a_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a=b.mp4").touch()
        assert SourceName.parse("a=b.mp4") == SourceName("a=b.mp4", "a=b.mp4")

    def test_two_of_one_name_are_refused(self) -> None:
        with pytest.raises(InputError, match="door is there twice"):
            parse_names(["door=0", "1", "door=2"])

    def test_files_are_told_apart_by_the_name(self) -> None:
        assert file_of(Path("out/cam.mp4"), "rtsp://10.0.0.7:554/a b") == Path("out/cam.rtsp-10.0.0.7-554-a-b.mp4")
        assert file_of(Path("cam.mp4"), "../..") == Path("cam.source.mp4")


class TestSeveral:
    def test_a_camera_that_is_not_there_yet_is_waited_for_while_another_is(
        self, camera: Camera, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        monkeypatch.setattr("edge.sources.live.Supervision", lambda: Supervision(QUICK))
        camera.off()
        video = toy.write_video(tmp_path / "v.mp4", [shade(1)] * 3)
        address = f"http://127.0.0.1:{camera.port}/mjpeg"
        first, second = open_sources(parse_names([f"yard={address}", f"file={video}"]))
        try:
            assert (first.name, second.name) == ("yard", "file")
            assert first.poll() is None
            assert not first.ended
            assert [frame.source for frame in second] == ["file"] * 3
            camera.on()
            frame = first.read()
            assert frame is not None
            assert frame.image.mean() == pytest.approx(50, abs=3)
            assert "yard: cannot be opened" in caplog.text
            assert "yard: back" in caplog.text
        finally:
            first.close()
            second.close()

    def test_those_that_are_not_there_are_waited_for_together_and_once(
        self, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        asked = []
        together = threading.Barrier(2, timeout=60)

        def unanswered(url: str, name: str) -> None:
            asked.append(name)
            together.wait()
            raise SourceError(f"{name}: nobody answers")

        monkeypatch.setattr("edge.sources.opening.open_network", unanswered)
        monkeypatch.setattr("edge.sources.live.Supervision", lambda: Supervision(Backoff(first=60, longest=60)))
        video = toy.write_video(tmp_path / "v.mp4", [shade(1)] * 3)
        opened = open_sources(parse_names(["a=http://a/", f"file={video}", "b=rtsp://b/"]))
        try:
            assert [source.name for source in opened] == ["a", "file", "b"]
            assert sorted(asked) == ["a", "b"]
            assert [record.getMessage() for record in caplog.records] == [
                "a: nobody answers; trying again",
                "b: nobody answers; trying again",
            ]
        finally:
            for source in opened:
                source.close()

    def test_where_none_is_there_the_first_ones_error_is_raised(self) -> None:
        with pytest.raises(SourceError, match=r"^a: cannot be opened; there is no such camera"):
            open_sources(parse_names(["a=987", "b=986"]))

    def test_a_file_that_is_not_there_is_a_mistake_however_many_others_are(self, toy: Any, tmp_path: Path) -> None:
        video = toy.write_video(tmp_path / "v.mp4", [shade(1)] * 3)
        with pytest.raises(SourceError, match=r"nowhere\.mp4: no such file"):
            open_sources(parse_names([str(video), "x=nowhere.mp4"]))
