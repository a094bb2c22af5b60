"""NV12 from the camera's pipeline to whoever needs BGR: read as OpenCV reads it, and converted only for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.align import ARCFACE_112
from edge.analyze import FaceAnalyzer
from edge.gallery import Binding, Gallery
from edge.live.board import Board
from edge.nv12 import Nv12
from edge.pipeline import Pipeline
from edge.sinks import VideoFileSink
from edge.sources import SourceOptions, capture, opening
from edge.sources.gstreamer import CsiOptions, csi_pipeline, rtsp_pipeline
from edge.sources.live import LiveSource
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.tracking.linking import CutDetector
from edge.types import Decision, Face, Frame, FrameResult, Image, Match


def nv12_of(image: Image) -> Nv12:
    """An image with even sides, as a camera would have given it."""
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, -1).T.reshape(-1, width)
    return Nv12(np.concatenate([planar[:height], chroma]))


def rubbish(height: int, width: int, seed: int = 0) -> Nv12:
    """Every value there is, also those no camera gives."""
    return Nv12(np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), dtype=np.uint8))


@given(half=st.tuples(*[st.integers(1, 20)] * 2), step=st.tuples(*[st.integers(1, 9)] * 2), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_green_alone_is_the_green_of_the_whole_to_the_last_bit(
    half: tuple[int, int], step: tuple[int, int], seed: int
) -> None:
    (height, width), (down, across) = half, step
    frame = rubbish(2 * height, 2 * width, seed)
    assert frame.shape == (2 * height, 2 * width, 3)
    np.testing.assert_array_equal(frame.green(down, across), frame.bgr[::down, ::across, 1])


def test_it_is_opencv_s_reading_and_made_once() -> None:
    frame = rubbish(36, 64)
    np.testing.assert_array_equal(frame.bgr, cv2.cvtColor(frame.planes, cv2.COLOR_YUV2BGR_NV12))
    assert frame.bgr is frame.bgr
    smooth = cv2.GaussianBlur(np.random.default_rng(1).integers(60, 190, (90, 160, 3)).astype(np.uint8), (0, 0), 9)
    assert np.abs(nv12_of(smooth).bgr.astype(int) - smooth).max() <= 4, "there and back, but for chroma's size"


@pytest.mark.parametrize(
    "planes",
    [
        np.zeros((9, 7), np.uint8),
        np.zeros((10, 8), np.uint8),
        np.zeros((9, 8), np.float32),
        np.zeros((9, 8, 3), np.uint8),
        np.zeros((0, 8), np.uint8),
    ],
)
def test_what_is_no_nv12_is_refused(planes: Any) -> None:
    with pytest.raises(ValueError, match="NV12"):
        Nv12(planes)


def test_a_frame_s_image_is_bgr_whatever_its_pixels_are() -> None:
    pixels = rubbish(36, 64)
    frame = Frame(pixels, 0, 0.0, "csi")
    assert frame.size == (36, 64)
    assert pixels._bgr is None
    assert frame.image is pixels.bgr
    plain = Frame(pixels.bgr, 0, 0.0, "csi")
    assert (plain.size, plain.image is plain.pixels) == ((36, 64), True)


def test_cuts_are_those_of_the_image_and_no_image_is_made() -> None:
    random = np.random.default_rng(3)
    scene, other = (cv2.resize(random.integers(0, 256, (9, 16, 3)).astype(np.uint8), (320, 180)) for _ in range(2))
    frames = [nv12_of(np.roll(scene if i < 12 else other, 2 * i, axis=1)) for i in range(16)]
    here, there = CutDetector(), CutDetector()
    assert [i for i, frame in enumerate(frames) if here.is_cut(frame)] == [12]
    assert all(frame._bgr is None for frame in frames)
    assert [i for i, frame in enumerate(frames) if there.is_cut(frame.bgr)] == [12]
    np.testing.assert_array_equal(here._last, there._last)


class TestPipelines:
    def test_nv12_goes_from_the_camera_to_the_appsink_unconverted(self) -> None:
        assert csi_pipeline(CsiOptions(sensor=1, width=1920, height=1080, fps=60, flip=2), nv12=True) == (
            "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,framerate=60/1 "
            "! nvvidconv flip-method=2 ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1 sync=false"
        )
        assert rtsp_pipeline("rtsp://10.0.0.7/live", nv12=True) == (
            'rtspsrc location="rtsp://10.0.0.7/live" protocols=tcp latency=100 ! rtph264depay ! h264parse ! '
            "nvv4l2decoder ! nvvidconv ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1 sync=false"
        )

    @pytest.mark.parametrize(
        ("name", "asked", "given"),
        [
            ("csi://0", True, True),
            ("csi://0", False, False),
            ("csi://0?width=641&height=480", True, False),
            ("csi://0?width=640&height=481", True, False),
            ("rtsp://host/a", True, True),
            ("rtsp://host/a", False, False),
        ],
    )
    def test_a_source_is_opened_as_nv12_where_it_is_asked_and_can(
        self, name: str, asked: bool, given: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[tuple[str, bool]] = []
        monkeypatch.setattr(opening, "open_pipeline", lambda text, name, nv12: opened.append((text, nv12)))
        monkeypatch.setattr(opening, "WatchedCapture", lambda open_capture, name: open_capture())
        monkeypatch.setattr(opening, "has_gstreamer", lambda: True)
        monkeypatch.setattr(opening, "is_jetson", lambda: True)
        make = opening._live_capture(name, name, SourceOptions(nv12=asked))
        assert make is not None
        make()
        ((text, nv12),) = opened
        assert nv12 == given
        assert ("! video/x-raw,format=NV12 ! appsink" in text) == given
        assert ("videoconvert" in text) != given

    def test_a_jetsons_container_decodes_in_hardware_without_the_hosts_release(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It sees the family of the chip; /etc/nv_tegra_release only where it is given it."""
        family = Path("/sys/devices/soc0/family")
        monkeypatch.setattr("edge.jetson._text", lambda path: "Tegra\n" if path == family else "")
        monkeypatch.setattr(opening, "has_gstreamer", lambda: True)
        monkeypatch.setattr(opening, "open_network", lambda *what: "decoded on the CPU")
        monkeypatch.setattr(opening, "WatchedCapture", lambda open_capture, name: "decoded in hardware")
        make = opening._live_capture("rtsp://host/a", "rtsp://host/a", SourceOptions())
        assert make is not None
        assert make() == "decoded in hardware"  # type: ignore[comparison-overlap]

    def test_what_knows_no_nv12_is_opened_as_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(opening, "open_network", lambda *what: what)
        monkeypatch.setattr(opening, "open_camera", lambda *what: what)
        for name in ("rtsp://host/a", "0"):
            make = opening._live_capture(name, name, SourceOptions(nv12=True))
            assert make is not None
            assert name.replace("0", "/dev/video0") in make()


class Gives:
    """Stands for cv2.VideoCapture: gives arrays, as OpenCV's GStreamer does."""

    def __init__(self, *arrays: Any) -> None:
        self._arrays = iter(arrays)

    def __call__(self, *_: Any) -> Gives:
        return self

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        array = next(self._arrays, None)
        return array is not None, array

    def release(self) -> None:
        return


def test_a_capture_of_nv12_gives_nv12_and_anything_else_is_an_unusable_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = rubbish(36, 64).planes
    bgr = np.zeros((36, 64, 3), np.uint8)
    monkeypatch.setattr(capture, "has_gstreamer", lambda: True)
    monkeypatch.setattr(capture.cv2, "VideoCapture", Gives(planes, planes[..., None], bgr, planes[:, :63], planes))
    source = capture.open_pipeline("… ! appsink", "csi://0", nv12=True)
    for usable in (True, True, False, False, True):
        if usable:
            pixels, _ = source.read()
            assert isinstance(pixels, Nv12)
            np.testing.assert_array_equal(pixels.planes, planes)
        else:
            with pytest.raises(capture.CorruptFrame):
                source.read()
    monkeypatch.setattr(capture.cv2, "VideoCapture", Gives(bgr, planes))
    plain = capture.open_pipeline("… ! appsink", "csi://0")
    assert plain.read()[0] is bgr
    with pytest.raises(capture.CorruptFrame):
        plain.read()


class Films:
    """A camera of NV12 that has so many frames."""

    fps, length = 25.0, 0

    def __init__(self, frames: list[Nv12]) -> None:
        self._frames = list(frames)

    def read(self) -> tuple[Nv12, float]:
        if not self._frames:
            raise capture.EndOfStream
        return self._frames.pop(0), 100.0 - len(self._frames) / 25

    def close(self) -> None:
        return


class Kept:
    def __init__(self) -> None:
        self.results: list[FrameResult] = []

    def write(self, result: FrameResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        return


def test_on_the_cpu_a_stream_of_nv12_is_seen_as_its_images_are(toy: Any, tmp_path: Path) -> None:
    """Faces, crops, the tracker, the annotated video and the live page: all through one conversion a frame."""
    scene = nv12_of(toy.scene(320, 240, [(1, 80, 64)]))
    kept, file = Kept(), tmp_path / "v.avi"
    with (
        FaceAnalyzer(toy.bundle) as analyzer,
        Gallery.create(tmp_path / "g", Binding.of(analyzer.embedder_variant)) as gallery,
    ):
        faces = analyzer.detect(scene)
        assert len(faces) == 1
        vector = analyzer.embed(analyzer.align(scene, faces))
        np.testing.assert_array_equal(vector, analyzer.embed(analyzer.align(scene.bgr, analyzer.detect(scene.bgr))))
        gallery.add("p1", vector, ["portrait"])
        tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold)))
        board = Board(["cam"], toy.threshold)
        sinks = [kept, VideoFileSink(file, 25.0), board]
        with LiveSource(lambda: Films([Nv12(scene.planes) for _ in range(8)]), "cam") as source:
            Pipeline([analyzer], gallery.snapshot, toy.threshold, sinks, tracker).run(source)
    assert kept.results
    assert all(isinstance(result.frame.pixels, Nv12) for result in kept.results)
    assert kept.results[-1].decisions[0].match.nearest == "p1"
    video = cv2.VideoCapture(str(file))
    _, drawn = video.read()
    assert np.abs(drawn[200:, 200:].astype(int) - scene.bgr[200:, 200:]).mean() < 6


def test_the_live_page_makes_an_image_of_a_frame_only_where_it_cuts_a_portrait() -> None:
    frames = [Frame(rubbish(90, 160, i), i, float(i), "cam") for i in range(4)]
    board = Board(["cam"], 0.4, now=lambda: 5.0)
    face = Face(np.array([20, 20, 60, 60], np.float32), np.float32(ARCFACE_112 / 3 + 20), 0.9)
    ada = Decision(0, 0.0, "cam", face, Match("ada", 0.7, 0.4, "ada"))
    for frame, decisions in zip(frames, ((), (ada,), (ada,), ()), strict=True):
        board.write(FrameResult(frame, decisions, {}))
    made = [isinstance(frame.pixels, Nv12) and frame.pixels._bgr is not None for frame in frames]
    assert made == [False, True, False, False], "the second portrait would be no better"
