"""GStreamer pipelines of a Jetson, as strings: pure functions, so that they are tested without a camera."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import SourceError

_APPSINK = "appsink drop=true max-buffers=1 sync=false"
_TO_BGR = "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
_TO_NV12 = "video/x-raw,format=NV12"
"""Out of the memory of the camera or decoder, as it is: OpenCV takes it where it is offered nothing else."""


@dataclass(frozen=True, slots=True)
class CsiOptions:
    """A CSI camera: sensor number, (width, height) in pixels, frames a second, nvvidconv's flip-method (0 to 7)."""

    sensor: int = 0
    width: int = 1280
    height: int = 720
    fps: int = 30
    flip: int = 0

    def __post_init__(self) -> None:
        if self.sensor < 0 or min(self.width, self.height, self.fps) < 1 or not 0 <= self.flip <= 7:
            raise SourceError(f"csi://{self.sensor}: size, rate or flip out of range ({self})")

    @property
    def gives_nv12(self) -> bool:
        """Whether its frames can be NV12 in OpenCV: of even sides."""
        return self.width % 2 == 0 and self.height % 2 == 0


def csi_pipeline(options: CsiOptions, *, nv12: bool = False) -> str:
    """NVIDIA's camera service to BGR frames, or to the NV12 they come as; newest only."""
    return (
        f"nvarguscamerasrc sensor-id={options.sensor} ! video/x-raw(memory:NVMM),width={options.width},"
        f"height={options.height},format=NV12,framerate={options.fps}/1 ! nvvidconv flip-method={options.flip} ! "
        f"{_TO_NV12 if nv12 else _TO_BGR} ! {_APPSINK}"
    )


def rtsp_pipeline(url: str, latency_ms: int = 100, *, nv12: bool = False) -> str:
    """An H.264 RTSP stream through the hardware decoder to BGR frames, or to its own NV12; newest only.

    Over TCP, as FFmpeg takes it: UDP does not find its way into a container, and loses packets over radio.
    Raises SourceError for a URL with characters that would end the quotation, or add elements to the pipeline.
    """
    if any(character in url for character in "\"'\\! \t\n"):
        raise SourceError("the rtsp address holds a blank, quote, backslash or '!'; write it percent-encoded")
    return (
        f'rtspsrc location="{url}" protocols=tcp latency={latency_ms} ! rtph264depay ! h264parse ! nvv4l2decoder ! '
        f"nvvidconv ! {_TO_NV12 if nv12 else _TO_BGR} ! {_APPSINK}"
    )
