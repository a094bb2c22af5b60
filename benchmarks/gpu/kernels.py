"""Our kernels against the copy bandwidth of the same device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.gpu.timing import against_bandwidth, device_times, upload
from edge.align import ARCFACE_112
from edge.cuda import CudaDevice, DeviceMemory, Stream
from edge.cuda.driver import free_memory
from edge.cuda.kernels import (
    EMBEDDERS,
    FIELDS,
    LANDMARKERS,
    PROBES,
    DetectionMemory,
    DevicePicture,
    DeviceVectors,
    Kernels,
    Normalisation,
    SearchMemory,
    Template,
)
from edge.cuda.protocol import DevicePart
from edge.detect import DetectorOptions
from edge.detect.decode import OUTPUTS

FACES = 5
DIMENSIONS = 512
MOST_ROWS = 1_000_000
_CHUNK = 16_384
DETECTION = DetectorOptions()
"""As the runtime detects: what is measured is the work it does."""

RARE_PRODUCT = 0.92
"""The product of two uniform numbers is above p with 1 − p + p·ln p, here once in 300."""


def measure_kernels(
    device: CudaDevice, kernels: Kernels, frame: tuple[int, int], rounds: int, bandwidth: float | None
) -> dict[str, Any]:
    """Every kernel but the search's, on one frame of (width, height): time, and the bytes it must read and write once,
    held against the copy bandwidth.
    """
    width, height = frame
    rng = np.random.default_rng(0)
    stream = device.stream()
    bgr = upload(device, stream, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    luma = upload(device, stream, rng.integers(0, 256, (height, width), dtype=np.uint8))
    chroma = upload(device, stream, rng.integers(0, 256, (height // 2, width), dtype=np.uint8))
    sources = {
        "bgr": (DevicePicture(bgr.address, 3 * width, width, height), 3 * width * height),
        "nv12": (DevicePicture(luma.address, width, width, height, chroma.address, width), 3 * width * height // 2),
    }
    scale = min(1.0, 640 / max(width, height))
    scaled = (max(1, round(height * scale)), max(1, round(width * scale)))
    size = (-(-scaled[0] // 32) * 32, -(-scaled[1] // 32) * 32)
    out = device.alloc(4 * 3 * size[0] * size[1])
    # Faces a fifth of the frame wide, as a camera at a door sees them.
    faces = [ARCFACE_112 * (width / 5 / 112) + (i * width / 6, height / 4) for i in range(FACES)]
    landmarks = upload(device, stream, np.stack(faces).astype(np.float32))
    crops = device.alloc(FACES * 3 * EMBEDDERS.size**2)
    # Of a landmarker: every face moves, by a pixel of its view.
    offsets = upload(device, stream, np.ones((FACES, 10), np.float32))
    done = upload(device, stream, np.zeros(FACES, np.int32))
    found: dict[str, Any] = {}

    def measured(work: Callable[[], None], moved: int) -> dict[str, Any]:
        times = device_times(device, stream, work, rounds)
        return {**times.to_dict(), **against_bandwidth(times.median, moved, bandwidth)}

    normalisation = Normalisation((127.5,) * 3, (128.0,) * 3, rgb=True)
    pixels = 3 * size[0] * size[1]
    for kind, (picture, read) in sources.items():
        boxes = FACES * (width // 5) ** 2 * read // (width * height)  # of the frame, that the crops are cut from

        def letterbox(picture: DevicePicture = picture, how: Normalisation | None = None) -> None:
            kernels.letterbox(picture, out.address, size, scaled, stream, how)

        def align(picture: DevicePicture = picture, template: Template = EMBEDDERS) -> None:
            kernels.align(picture, landmarks.address, FACES, crops.address, stream, template)

        found[f"letterbox_{kind}"] = measured(letterbox, read + pixels)
        found[f"letterbox_{kind}_normalised"] = measured(
            lambda letterbox=letterbox: letterbox(how=normalisation),  # type: ignore[misc]
            read + 4 * pixels,
        )
        found[f"align_{kind}_{FACES}_faces"] = measured(align, boxes + FACES * 3 * EMBEDDERS.size**2)
        found[f"align_wide_{kind}_{FACES}_faces"] = measured(
            lambda align=align: align(template=LANDMARKERS),  # type: ignore[misc]
            round(boxes * _wider()) + FACES * 3 * LANDMARKERS.size**2,
        )
    sums = device.alloc(FACES * 2 * 8)
    found[f"sharpness_{FACES}_faces"] = measured(
        lambda: kernels.sharpness(crops.address, FACES, sums.address, stream), FACES * (3 * 88 * 68 + 16)
    )
    # Last of those that take landmarks: it moves them.
    found[f"place_{FACES}_faces"] = measured(
        lambda: kernels.place(offsets.address, done.address, FACES, landmarks.address, stream), FACES * (3 * 40 + 4)
    )
    found["decode_suppress_vote"] = _detect(device, kernels, size, stream, measured)
    stream.synchronize()
    for memory in (bgr, luma, chroma, out, landmarks, crops, offsets, done, sums):
        memory.free()
    return {"frame": [width, height], "input": list(size), "kernels": found}


def _wider() -> float:
    """How much more of a frame a landmarker's view shows of a face than an embedder's crop."""
    return (LANDMARKERS.size / LANDMARKERS.zoom / EMBEDDERS.size) ** 2


def _detect(
    device: CudaDevice,
    kernels: Kernels,
    size: tuple[int, int],
    stream: Stream,
    measured: Callable[[Callable[[], None], int], dict[str, Any]],
) -> dict[str, Any]:
    """Heads of one input to faces; one cell in three hundred is above the score, as where five faces are seen."""
    rng = np.random.default_rng(2)
    # A score is the root of a product of two: uniform numbers to this power make one above min_score as rare.
    power = 2 * np.log(DETECTION.score) / np.log(RARE_PRODUCT)
    heads = {}
    for name in OUTPUTS:
        kind, stride = name.split("_")
        cells = (size[0] // int(stride)) * (size[1] // int(stride))
        width = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}[kind]
        values = rng.random((cells, width)) ** (power if width == 1 else 1)
        heads[name] = upload(device, stream, values.astype(np.float32))
    memory = DetectionMemory.on(device, 1, DETECTION.max_faces)
    addresses = {name: head.address for name, head in heads.items()}
    entry = measured(
        lambda: kernels.detect(addresses, 1, size, DETECTION.score, DETECTION.max_iou, (1.0, 1.0), memory, stream),
        sum(head.size for head in heads.values()) + 4 * FIELDS * DETECTION.max_faces,
    )
    stream.synchronize()
    for held in heads.values():
        held.free()
    memory.free()
    return entry


def rows_that_fit() -> int:
    """MOST_ROWS, or as many as half of the GPU's free memory holds: a Jetson's is the host's too."""
    return min(MOST_ROWS, free_memory() // 2 // (4 * (DIMENSIONS + 1)))


def measure_search(
    device: CudaDevice, kernels: Kernels, rows: int, rounds: int, bandwidth: float | None
) -> dict[str, Any]:
    """The search of a gallery of `rows` made-up vectors, and bringing these to unit length: as `measure_kernels`."""
    rng = np.random.default_rng(1)
    with ExitStack() as held:  # gigabytes: a part that fails must not keep them from the others
        stream = device.stream()
        held.callback(stream.close)
        gallery = _drawn(device, stream, rng, rows)
        held.callback(gallery.free)
        probes = _drawn(device, stream, rng, PROBES)
        held.callback(probes.free)
        # A row a person: the groups are read besides, as the camera's search reads them.
        owners = upload(device, stream, np.arange(rows, dtype=np.int32))
        held.callback(owners.free)
        vectors = DeviceVectors(gallery.address, rows, DIMENSIONS, owners.address)
        memory = SearchMemory.on(device)
        held.callback(memory.free)
        scaled = device_times(
            device, stream, lambda: kernels.normalise(gallery.address, rows, DIMENSIONS, stream), rounds
        )
        kernels.normalise(probes.address, PROBES, DIMENSIONS, stream)
        times = device_times(
            device, stream, lambda: kernels.search(vectors, probes.address, PROBES, memory, stream), rounds
        )
        stream.synchronize()
    moved = 4 * rows * DIMENSIONS
    size = {"rows": rows, "dimensions": DIMENSIONS}
    return {
        "search": {
            **times.to_dict(),
            **against_bandwidth(times.median, moved + 4 * rows, bandwidth),
            **size,
            "probes": PROBES,
        },
        "normalise": {
            **scaled.to_dict(),
            **against_bandwidth(scaled.median, 2 * moved, bandwidth),
            **size,
        },
    }


def _drawn(device: CudaDevice, stream: Stream, rng: np.random.Generator, rows: int) -> DeviceMemory:
    """(rows, DIMENSIONS) float32 on the device, drawn a chunk at a time: the host holds no more than one of them."""
    most = min(rows, _CHUNK)
    memory, pinned = device.alloc(4 * rows * DIMENSIONS), device.alloc_pinned(4 * most * DIMENSIONS)
    values = pinned.array.view(np.float32)
    for first in range(0, rows, most):
        count = DIMENSIONS * min(most, rows - first)
        rng.standard_normal(dtype=np.float32, out=values[:count])
        part = DevicePart(memory.address + 4 * DIMENSIONS * first, 4 * count)
        device.copy_in(part, pinned, part.size, stream)
        stream.synchronize()
    pinned.free()
    return memory
