"""From what a user types after --source to an opened source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from edge.errors import EdgeError, InputError, SourceError
from edge.jetson import is_jetson
from edge.pictures import find_pictures, is_picture
from edge.sources import gstreamer
from edge.sources.base import Source, without_password
from edge.sources.capture import Capture, has_gstreamer, open_camera, open_network, open_pipeline, open_video_file
from edge.sources.files import Pictures, VideoFile
from edge.sources.live import LiveSource, PacedCapture
from edge.sources.naming import SourceName
from edge.sources.watched import WatchedCapture

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """realtime: files are played at their own speed and frames that come too late are dropped, as from a camera.

    size: (width, height) asked of a camera; fps: rate asked of it. patient: a camera or stream is known not to be there
    yet, and waited for as one that is lost is. nv12: a source whose frames are NV12 gives them so, without converting
    them.
    """

    realtime: bool = False
    size: tuple[int, int] | None = None
    fps: float | None = None
    patient: bool = False
    nv12: bool = False


def open_source(name: str, options: SourceOptions | None = None, label: str | None = None) -> Source:
    """Opens "0", "/dev/video2", a video file, a picture or folder of pictures, rtsp://, http(s)://, csi://0.

    label: what frames, logs and events call it; as typed, without a password, where it is None.
    Raises SourceError, or InputError for a folder without pictures.
    """
    wanted = options or SourceOptions()
    shown = label or without_password(name)
    open_capture = _live_capture(name, shown, wanted)
    if open_capture is not None:
        return LiveSource(open_capture, shown, patient=wanted.patient)
    return _open_path(Path(name), shown, wanted)


def open_sources(names: Sequence[SourceName], options: SourceOptions | None = None) -> list[Source]:
    """Opens several. A camera or stream that is not there yet is waited for while at least one other source is there.

    Raises SourceError where none is, or a file is not; InputError as `open_source` does.
    """
    wanted = options or SourceOptions()
    waited_for = [_live_capture(name.address, name.label, wanted) is not None for name in names]
    # All at once: an answer that does not come is waited for eight seconds, and those that are there saw nothing then.
    with ThreadPoolExecutor(len(names)) as pool:
        found = [*pool.map(lambda name: _open_or_miss(name, wanted), names)]
    try:
        missing = [one for one in found if isinstance(one, EdgeError)]
        mistakes = [one for one, wait in zip(found, waited_for, strict=True) if isinstance(one, EdgeError) and not wait]
        if mistakes or len(missing) == len(names):
            raise (mistakes or missing)[0]
        for error in missing:
            _LOG.warning("%s; trying again", error)
        waiting = replace(wanted, patient=True)
        return [
            one if isinstance(one, Source) else open_source(name.address, waiting, name.label)
            for name, one in zip(names, found, strict=True)
        ]
    except EdgeError:
        for one in found:
            if isinstance(one, Source):
                one.close()
        raise


def _open_or_miss(name: SourceName, wanted: SourceOptions) -> Source | EdgeError:
    """The source, or why it cannot be opened."""
    try:
        return open_source(name.address, wanted, name.label)
    except EdgeError as error:
        return error


def _live_capture(name: str, shown: str, wanted: SourceOptions) -> Callable[[], Capture] | None:
    """What opens a camera or stream; None for a path. Raises SourceError for what can be neither."""
    try:
        scheme = urlsplit(name).scheme.lower() if "://" in name else ""
    except ValueError as error:
        raise SourceError(f"{shown}: not an address ({error})") from error
    if scheme == "csi":
        camera = _csi_options(name, wanted)
        nv12 = wanted.nv12 and camera.gives_nv12
        pipeline = gstreamer.csi_pipeline(camera, nv12=nv12)
        return lambda: WatchedCapture(lambda: open_pipeline(pipeline, shown, nv12=nv12), shown)
    if scheme in ("rtsp", "rtsps") and is_jetson() and has_gstreamer():
        pipeline = gstreamer.rtsp_pipeline(name, nv12=wanted.nv12)
        return lambda: WatchedCapture(lambda: open_pipeline(pipeline, shown, nv12=wanted.nv12), shown)
    if scheme in ("rtsp", "rtsps", "http", "https"):
        return lambda: open_network(name, shown)
    if scheme:
        raise SourceError(f"{shown}: {scheme}:// is not known; rtsp://, http://, https://, csi:// and replay:// are")
    if name.isdecimal() or name.startswith("/dev/"):
        device = f"/dev/video{int(name)}" if name.isdecimal() else name
        return lambda: open_camera(device, shown, wanted.size, wanted.fps)
    return None


def _open_path(path: Path, name: str, options: SourceOptions) -> Source:
    if path.is_dir() or (path.is_file() and is_picture(path)):
        if options.realtime:
            raise InputError(f"{path}: pictures have no speed of their own; leave --realtime out")
        return Pictures(find_pictures([path]), name)
    if not path.is_file():
        raise SourceError(f"{path}: no such file, folder or camera; cameras are named 0, 1, … or /dev/video0")
    capture = open_video_file(path, name)
    if options.realtime:
        opened = [PacedCapture(capture)]
        return LiveSource(opened.pop, name, length=capture.length or None)
    return VideoFile(capture, name)


def _csi_options(name: str, options: SourceOptions) -> gstreamer.CsiOptions:
    """csi://SENSOR?width=…&height=…&fps=…&flip=…; --size and --fps count where the name does not say."""
    parts = urlsplit(name)
    values: dict[str, int] = {}
    if options.size is not None:
        values["width"], values["height"] = options.size
    if options.fps is not None:
        values["fps"] = round(options.fps)
    try:
        asked = {key: int(value) for key, value in parse_qsl(parts.query, strict_parsing=bool(parts.query))}
        return gstreamer.CsiOptions(sensor=int(parts.netloc), **{**values, **asked})
    except (TypeError, ValueError) as error:
        raise SourceError(f"{name}: not csi://SENSOR?width=W&height=H&fps=F&flip=0..7 ({error})") from error
