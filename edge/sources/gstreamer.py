"""GStreamer pipelines of a Jetson, as strings: pure functions, so that they are tested without a camera."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import SourceError

_APPSINK = "appsink drop=true max-buffers=1 sync=false"
_TO_BGR = "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"


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


def csi_pipeline(options: CsiOptions) -> str:
    """NVIDIA's camera service to BGR frames, newest only."""
    return (
        f"nvarguscamerasrc sensor-id={options.sensor} ! video/x-raw(memory:NVMM),width={options.width},"
        f"height={options.height},format=NV12,framerate={options.fps}/1 ! nvvidconv flip-method={options.flip} ! "
        f"{_TO_BGR} ! {_APPSINK}"
    )


def rtsp_pipeline(url: str, latency_ms: int = 100) -> str:
    """An H.264 RTSP stream through the hardware decoder to BGR frames, newest only.

    Raises SourceError for a URL with characters that would end the quotation, or add elements to the pipeline.
    """
    if any(character in url for character in "\"'\\! \t\n"):
        raise SourceError("the rtsp address holds a blank, quote, backslash or '!'; write it percent-encoded")
    return (
        f'rtspsrc location="{url}" latency={latency_ms} ! rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv ! '
        f"{_TO_BGR} ! {_APPSINK}"
    )
