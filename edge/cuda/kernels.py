"""The kernels of `kernels/`, compiled ahead of time and loaded by name: a frame goes up once, and faces come down.

Every call only queues work on a stream; the caller owns all memory. Each has a CPU reference in `edge` it agrees with:
`Detector.prepare`, `align`, `detect.landmarker.placed`, `quality.sharpness`, `decode` with `nms` and `vote`, and
`matching.nearest`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.align import CROP_SIZE, WIDE_96_SIZE, WIDE_96_ZOOM
from edge.cuda.protocol import CudaDevice, DeviceMemory, Dim3, Launch, Stream
from edge.detect.decode import OUTPUTS
from edge.detect.landmarker import MAX_MOVE
from edge.detect.vote import MIN_IOU as SAME_FACE_IOU
from edge.errors import EngineError

FAT_BINARY = "arcedge.fatbin"
ENVIRONMENT = "ARCEDGE_KERNELS"
BUILD: Final = "build them with: cmake --preset desktop && cmake --build --preset desktop --target install"

FIELDS: Final = 15
"""Floats of a face that `detect` gives: x1 y1 x2 y2, five landmarks x y, score; pixels of the frame."""
CANDIDATES: Final = 4096
"""Cells above the score that an image may have."""
TOP: Final = 8
"""Groups that `search` gives for a probe."""
PROBES: Final = 8
"""Probes that one pass over the gallery serves."""
MAX_DIMENSIONS: Final = 512

_VOTERS = 64
_SUMMERS = 128
_PLACERS = 32
_MOST_CROP = 128
_WARPS = 8
_MOST_BLOCKS = 1024
_LETTERBOX = {"bgr": "Piii", "nv12": "PPiiii"}
VERSION: Final = "arcedge_kernels_4"
"""A kernel that does nothing, of this name in a fat binary whose kernels take what this file gives them."""
SIGNATURES: Final[dict[str, str]] = {
    VERSION: "",
    **{f"letterbox_{kind}_u8": source + "Piiii" for kind, source in _LETTERBOX.items()},
    **{f"letterbox_{kind}_f32": source + "Piiiiffffffi" for kind, source in _LETTERBOX.items()},
    **{f"align_{kind}": source + "PifP" for kind, source in _LETTERBOX.items()},
    "place": "PPiiffP",
    "sharpness": "PP",
    "decode_heads": "P" * 12 + "iifPPP",
    "suppress": "PPPfiffPPP",
    "vote": "PPPPPifffP",
    "normalise_rows": "Pii",
    "search_blocks": "PPiiPiPP",
    "merge_blocks": "PPiiPP",
}
"""Arguments of each kernel: P address, i int32, f float32. A test holds them against the source."""


@dataclass(frozen=True, slots=True)
class Template:
    """Where `align` puts landmarks in a crop of `size` pixels a side: on ARCFACE_112 zoomed about its middle."""

    size: int
    zoom: float

    def __post_init__(self) -> None:
        if not 0 < self.size <= _MOST_CROP:
            raise EngineError(f"a crop is 1 to {_MOST_CROP} pixels a side, not {self.size}")


EMBEDDERS: Final = Template(CROP_SIZE, 1.0)
"""ARCFACE_112."""
LANDMARKERS: Final = Template(WIDE_96_SIZE, WIDE_96_ZOOM)
"""WIDE_96."""


@dataclass(frozen=True, slots=True)
class DevicePicture:
    """A frame on the device: interleaved BGR, or NV12 where `chroma` is given. Pitches are bytes a row."""

    address: int
    pitch: int
    width: int
    height: int
    chroma: int | None = None
    chroma_pitch: int = 0

    def __post_init__(self) -> None:
        if self.chroma is not None and (self.width % 2 or self.height % 2):
            raise EngineError(f"an NV12 frame has even sides, not {self.width}×{self.height}")

    @property
    def kind(self) -> str:
        """As kernels are named."""
        return "bgr" if self.chroma is None else "nv12"

    @property
    def arguments(self) -> tuple[int, ...]:
        """As kernels take it."""
        if self.chroma is None:
            return (self.address, self.pitch, self.width, self.height)
        return (self.address, self.chroma, self.pitch, self.chroma_pitch, self.width, self.height)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """(value − mean) / std per channel, in the order of the channels that come out; `rgb` swaps them first."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rgb: bool

    @property
    def arguments(self) -> tuple[float, ...]:
        """As kernels take it."""
        return (*self.mean, *(1.0 / value for value in self.std), int(self.rgb))


@dataclass(frozen=True, slots=True)
class DetectionMemory:
    """Memory for `Kernels.detect` of up to `images` images, each with up to `limit` faces."""

    candidates: DeviceMemory
    cells: DeviceMemory
    counts: DeviceMemory
    faces: DeviceMemory
    kept: DeviceMemory
    chosen: DeviceMemory
    images: int
    limit: int

    @classmethod
    def on(cls, device: CudaDevice, images: int, limit: int) -> DetectionMemory:
        """Allocates it."""
        cells, faces = images * CANDIDATES, images * limit
        sizes = (cells * FIELDS, cells, images, faces * FIELDS, images, faces)
        candidates, order, counts, found, kept, chosen = _allocated(device, [4 * size for size in sizes])
        return cls(candidates, order, counts, found, kept, chosen, images, limit)

    def free(self) -> None:
        """Gives it back."""
        for memory in (self.candidates, self.cells, self.counts, self.faces, self.kept, self.chosen):
            memory.free()


@dataclass(frozen=True, slots=True)
class SearchMemory:
    """Memory for `Kernels.search` of up to `probes` probes; `scores` and `groups`: (probes, TOP) float32 and int32."""

    block_scores: DeviceMemory
    block_groups: DeviceMemory
    scores: DeviceMemory
    groups: DeviceMemory
    probes: int

    @classmethod
    def on(cls, device: CudaDevice, probes: int = PROBES) -> SearchMemory:
        """Allocates it."""
        block, whole = 4 * _MOST_BLOCKS * PROBES * TOP, 4 * probes * TOP
        scores, groups, best, whose = _allocated(device, [block, block, whole, whole])
        return cls(scores, groups, best, whose, probes)

    def free(self) -> None:
        """Gives it back."""
        for memory in (self.block_scores, self.block_groups, self.scores, self.groups):
            memory.free()


@dataclass(frozen=True, slots=True)
class DeviceVectors:
    """Addresses of (rows, dimensions) float32 unit rows, and of (rows,) int32 groups, 0 or more.

    Without `groups` (0) each row is one of its own.
    """

    address: int
    rows: int
    dimensions: int
    groups: int = 0


class Kernels:
    """The kernels on one device."""

    def __init__(self, device: CudaDevice, image: bytes | None = None) -> None:
        """image: of the fat binary; None for the installed one. Raises EngineError, also for one of another version
        or of a newer CUDA than the driver's.
        """
        image = image or read_fat_binary()
        try:
            device.load_kernels(image, {})
        except EngineError as error:
            raise EngineError(
                f"the driver does not load the CUDA kernels ({error}): they were built with a newer CUDA than the "
                f"driver's {device.info.cuda}, or are damaged; {BUILD}, with a toolkit no newer than CUDA "
                f"{device.info.cuda}, or take a newer driver"
            ) from error
        try:
            device.load_kernels(image, {VERSION: ""})
        except EngineError as error:
            raise EngineError(f"the CUDA kernels do not belong to this arcedge ({error}); {BUILD}") from error
        self._launch: dict[str, Launch] = device.load_kernels(image, SIGNATURES)
        self._device = device

    def letterbox(
        self,
        picture: DevicePicture,
        out: int,
        size: tuple[int, int],
        scaled: tuple[int, int],
        stream: Stream,
        normalisation: Normalisation | None = None,
    ) -> None:
        """The picture at `scaled` (height, width) in the upper left of an input of `size`, black elsewhere.

        out: address of (height, width, 3) uint8 BGR, or with a normalisation of (3, height, width) float32.
        """
        (height, width), (scaled_height, scaled_width) = size, scaled
        shape = (out, width, height, scaled_width, scaled_height)
        grid: Dim3 = (-(-width // 32), -(-height // 8), 1)
        if normalisation is None:
            self._launch[f"letterbox_{picture.kind}_u8"](grid, (32, 8, 1), stream, (*picture.arguments, *shape))
        else:
            arguments = (*picture.arguments, *shape, *normalisation.arguments)
            self._launch[f"letterbox_{picture.kind}_f32"](grid, (32, 8, 1), stream, arguments)

    def align(
        self,
        picture: DevicePicture,
        landmarks: int,
        faces: int,
        crops: int,
        stream: Stream,
        template: Template = EMBEDDERS,
    ) -> None:
        """(faces, 5, 2) float32 landmarks → (faces, size, size, 3) uint8 BGR; black where landmarks coincide."""
        if faces:
            size = template.size
            arguments = (*picture.arguments, landmarks, size, template.zoom, crops)
            self._launch[f"align_{picture.kind}"]((-(-size // 8), faces, 1), (size, 8, 1), stream, arguments)

    def place(self, offsets: int, done: int, faces: int, landmarks: int, stream: Stream) -> None:
        """What a landmarker gave, (faces, 10) float32, of the crops that `align` cut at (faces, 5, 2) float32 landmarks
        → these placed anew, where they are.

        done: (faces,) int32, other than 0 where they stay. They stay as well where they coincide or would move by more
        than MAX_MOVE, and are no numbers where what the landmarker gave is none.
        """
        if faces:
            size, zoom = LANDMARKERS.size, LANDMARKERS.zoom
            self._launch["place"](
                (-(-faces // _PLACERS), 1, 1),
                (_PLACERS, 1, 1),
                stream,
                (offsets, done, faces, size, zoom, MAX_MOVE, landmarks),
            )

    def sharpness(self, crops: int, faces: int, sums: int, stream: Stream) -> None:
        """(faces, 112, 112, 3) uint8 BGR → (faces, 2) int64, which `edge.quality.sharpness_of` takes."""
        if faces:
            self._launch["sharpness"]((faces, 1, 1), (_SUMMERS, 1, 1), stream, (crops, sums))

    def detect(
        self,
        heads: Mapping[str, int],
        images: int,
        size: tuple[int, int],
        min_score: float,
        max_iou: float,
        back: tuple[float, float],
        memory: DetectionMemory,
        stream: Stream,
    ) -> None:
        """The twelve heads (addresses by name) of an input of `size` (height, width) → faces, best first.

        A face's box and landmarks are the mean over all cells that saw it, as `edge.detect.vote` says. back: factors
        (x, y) from the input's pixels to the frame's. Into memory.faces (images, limit, FIELDS) float32 and memory.kept
        (images) int32. Where memory.counts of an image exceeds CANDIDATES its faces are not defined.
        """
        if not 0 < images <= memory.images:
            raise EngineError(f"the detections' memory is for {memory.images} images, not {images}")
        height, width = size
        cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
        self._device.zero(memory.counts, 4 * images, stream)
        found = (memory.candidates.address, memory.cells.address, memory.counts.address)
        addresses = [heads[name] for name in OUTPUTS]
        self._launch["decode_heads"](
            (-(-cells // 256), images, 1), (256, 1, 1), stream, (*addresses, width, height, min_score, *found)
        )
        faces, kept, chosen = memory.faces.address, memory.kept.address, memory.chosen.address
        self._launch["suppress"](
            (images, 1, 1), (512, 1, 1), stream, (*found, max_iou, memory.limit, *back, faces, kept, chosen)
        )
        self._launch["vote"](
            (memory.limit, images, 1),
            (_VOTERS, 1, 1),
            stream,
            (*found, chosen, kept, memory.limit, SAME_FACE_IOU, *back, faces),
        )

    def normalise(self, vectors: int, rows: int, dimensions: int, stream: Stream) -> None:
        """(rows, dimensions) float32 to unit length, in place."""
        if rows:
            self._launch["normalise_rows"](
                (-(-rows // _WARPS), 1, 1), (32, _WARPS, 1), stream, (vectors, rows, dimensions)
            )

    def search(self, gallery: DeviceVectors, probes: int, count: int, memory: SearchMemory, stream: Stream) -> None:
        """Cosine of `count` unit probes to every row: the TOP best groups of each, best first, by their best row.

        Into memory.scores and memory.groups, (count, TOP); group −1 where the gallery has fewer. Raises EngineError.
        """
        rows, dimensions = gallery.rows, gallery.dimensions
        if not 0 < count <= memory.probes or dimensions > MAX_DIMENSIONS or rows < 1:
            raise EngineError(
                f"a search takes 1 to {memory.probes} probes of at most {MAX_DIMENSIONS} dimensions and a gallery that "
                f"is not empty; it was given {count} of {dimensions} and {rows} rows"
            )
        blocks = min(-(-rows // _WARPS), _MOST_BLOCKS)
        between = (memory.block_scores.address, memory.block_groups.address)
        vectors = (gallery.address, gallery.groups, rows, dimensions)
        for first in range(0, count, PROBES):
            some, at = min(PROBES, count - first), 4 * TOP * first
            here = probes + 4 * dimensions * first
            self._launch["search_blocks"]((blocks, 1, 1), (32, _WARPS, 1), stream, (*vectors, here, some, *between))
            self._launch["merge_blocks"](
                (some, 1, 1),
                (32, 1, 1),
                stream,
                (*between, blocks, some, memory.scores.address + at, memory.groups.address + at),
            )


def _allocated(device: CudaDevice, sizes: Sequence[int]) -> list[DeviceMemory]:
    """Memory of so many bytes each: all of it, or none and EngineError."""
    taken: list[DeviceMemory] = []
    with ExitStack() as undo:
        for size in sizes:
            taken.append(device.alloc(size))
            undo.callback(taken[-1].free)
        undo.pop_all()
    return taken


def kernels_path() -> Path:
    """Where the compiled kernels are looked for: $ARCEDGE_KERNELS, else beside this file."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path(__file__).with_name(FAT_BINARY)


def read_fat_binary() -> bytes:
    """The compiled kernels. Raises EngineError where they are not there."""
    path = kernels_path()
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: the CUDA kernels are not there ({error.strerror}); {BUILD}") from error
