"""OpenCV's captures behind one small protocol: an image and its time, or the exception that says why there is none."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from edge.clock import SYSTEM_CLOCK
from edge.errors import SourceError
from edge.nv12 import Nv12
from edge.pictures import as_text
from edge.types import Image, Picture

OPEN_TIMEOUT_MS = 8000
READ_TIMEOUT_MS = 8000

UNDECODED = 10
"""Frames in a row that cannot be decoded, after which a stream has ended."""

STALLED = 2.0
"""Seconds after which no further frame is waited for once one was not to be had: the stream is silent, not damaged."""

# Ubuntu's OpenCV on a Jetson is 4.5 or 4.6, which does not know it, nor opens anything with a setting it does not know.
_ONE_THREAD: dict[int, float] = {cv2.CAP_PROP_N_THREADS: 1} if hasattr(cv2, "CAP_PROP_N_THREADS") else {}


class EndOfStream(Exception):  # noqa: N818 - an end is no error
    """The stream has given its last frame."""


class CorruptFrame(Exception):  # noqa: N818 - the stream goes on
    """This frame cannot be used; the next may."""


class Capture(Protocol):
    """An opened camera, file or stream. `fps` and `length` (frames) are what it claims, 0 where it says nothing."""

    fps: float
    length: int

    def read(self) -> tuple[Picture, float]:
        """The next picture and its time in seconds; blocks.

        Raises EndOfStream, CorruptFrame, or SourceError where the stream is lost.
        """

    def close(self) -> None:
        """Frees it."""


class OpenCvCapture:
    """What `cv2.VideoCapture` opens: files, V4L2 cameras, network streams, GStreamer pipelines.

    A file's times are seconds from its start, everything else's seconds since the epoch. nv12: what is opened ends in
    NV12, which OpenCV gives as one channel of one and a half times the height.
    """

    def __init__(
        self, what: str | int, backend: int, settings: dict[int, float], *, is_file: bool, name: str, nv12: bool = False
    ) -> None:
        if as_text(str(what)) != str(what):
            raise SourceError(f"{name}: its name is not UTF-8, and OpenCV opens no other; rename it")
        _side_by_side()
        _hush()
        if backend == cv2.CAP_GSTREAMER:
            _hush_glib()
        parameters = [int(value) for pair in settings.items() for value in pair]
        self._capture = cv2.VideoCapture(what, backend, parameters)
        self._is_file = is_file
        self._name = name
        self._nv12 = nv12
        self._read = 0
        self._last = -1.0
        self._grabbed = False
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"{name}: cannot be opened; {_reason(what, backend)}")
        self.fps = max(0.0, float(self._capture.get(cv2.CAP_PROP_FPS)))
        self.length = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))) if is_file else 0

    def read(self) -> tuple[Picture, float]:
        began = SYSTEM_CLOCK.monotonic()
        done, image = self._capture.retrieve() if self._grabbed else self._capture.read()
        self._grabbed = False
        if not done:
            if self._goes_on(began):
                raise CorruptFrame
            if self._is_file:
                raise EndOfStream
            raise SourceError(f"{self._name}: gives no frame")
        picture = _checked_nv12(image) if self._nv12 else _checked(image)
        moment = self._file_time() if self._is_file else SYSTEM_CLOCK.time()
        self._read += 1
        return picture, moment

    def close(self) -> None:
        self._capture.release()

    def _goes_on(self, began: float) -> bool:
        """Whether there is a frame behind one that could not be read: OpenCV gives none for one that cannot be decoded,
        as at the end."""
        for _ in range(UNDECODED):
            if SYSTEM_CLOCK.monotonic() - began > STALLED:
                break
            self._grabbed = bool(self._capture.grab())
            if self._grabbed:
                break
        return self._grabbed

    def _file_time(self) -> float:
        """The container's time where it advances, as it does not in every file, else frame number by rate."""
        moment = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if not moment > self._last:
            moment = max(self._read / (self.fps or 25.0), self._last + 1e-3) if self._read else 0.0
        self._last = moment
        return moment


def open_video_file(path: Path, name: str) -> OpenCvCapture:
    """Raises SourceError where it is no video that this OpenCV can read."""
    return OpenCvCapture(str(path), cv2.CAP_FFMPEG, _ONE_THREAD, is_file=True, name=name)


def open_network(url: str, name: str) -> OpenCvCapture:
    """rtsp:// and http:// through FFmpeg, with time-outs. Raises SourceError."""
    settings: dict[int, float] = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_TIMEOUT_MS,
        **_ONE_THREAD,
    }
    return OpenCvCapture(url, cv2.CAP_FFMPEG, settings, is_file=False, name=name)


def open_camera(device: str, name: str, size: tuple[int, int] | None, fps: float | None) -> OpenCvCapture:
    """A V4L2 camera by its device file, at (width, height) and rate where asked. Raises SourceError."""
    settings: dict[int, float] = {}
    if size is not None:
        # Above VGA most USB cameras reach their rate in MJPEG only.
        settings[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*"MJPG")
        settings[cv2.CAP_PROP_FRAME_WIDTH], settings[cv2.CAP_PROP_FRAME_HEIGHT] = size
    if fps is not None:
        settings[cv2.CAP_PROP_FPS] = fps
    return OpenCvCapture(device, cv2.CAP_V4L2, settings, is_file=False, name=name)


def open_pipeline(pipeline: str, name: str, *, nv12: bool = False) -> OpenCvCapture:
    """A GStreamer pipeline that ends in an appsink, of NV12 or BGR. It may block for ever, see `edge.sources.watched`.

    Raises SourceError, also where OpenCV has no GStreamer.
    """
    if not has_gstreamer():
        raise SourceError(
            f"{name}: needs an OpenCV with GStreamer, which PyPI's has not; on a Jetson use the system's python3-opencv"
        )
    return OpenCvCapture(pipeline, cv2.CAP_GSTREAMER, {}, is_file=False, name=name, nv12=nv12)


def has_gstreamer() -> bool:
    """Whether this OpenCV can open GStreamer pipelines."""
    # The registry of backends lists plug-ins as well that are not there.
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def _checked(image: Any) -> Image:
    """What OpenCV gave, if it is BGR. Raises CorruptFrame."""
    if image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise CorruptFrame
    return np.asarray(image)


def _checked_nv12(image: Any) -> Nv12:
    """What OpenCV gave, if it is NV12. Raises CorruptFrame."""
    if image is not None and image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    try:
        return Nv12(np.asarray(image))
    except ValueError as error:
        raise CorruptFrame from error


def _side_by_side() -> None:
    """Lets OpenCV open streams, files and recordings at the same time, which it does one by one otherwise: a camera
    that does not answer kept others from coming back, and a new recording, with it every camera, from beginning.

    FFmpeg itself has needed no lock since 4.0. An OpenCV that does not know the variable, as older ones, keeps its own.
    """
    os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")


def _hush() -> None:
    """What cannot be opened is said once, in our words; OpenCV and FFmpeg would print a page."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2.utils, "logging"):  # not in OpenCV 4.6
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


_NOTHING_SAID = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
"""A GLogFunc: domain, level, message, data."""


@cache
def _hush_glib() -> None:
    """OpenCV before 4.7 takes a pipeline that did not start apart in the wrong order, at forty lines an attempt."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libglib-2.0.so.0").g_log_set_default_handler(_NOTHING_SAID, None)


def _reason(what: str | int, backend: int) -> str:
    if backend == cv2.CAP_V4L2:
        device = Path(str(what))
        if not device.exists():
            return "there is no such camera; see: edge doctor"
        if not os.access(device, os.R_OK | os.W_OK):
            return "this user may not use it: add them to the group video"
        return "it is no camera, or another program uses it"
    if backend == cv2.CAP_FFMPEG and Path(str(what)).exists():
        return "not a video OpenCV can read, or damaged"
    if backend == cv2.CAP_GSTREAMER:
        return "the pipeline does not start; is the camera connected, and this a Jetson?"
    return "nobody answers there, the address is wrong, or it is no stream"
