"""Our kernels against the copy bandwidth of the same device."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gpu.timing import against_bandwidth, device_times, figures, upload
from edge.align import ARCFACE_112
from edge.cuda import CudaDevice
from edge.cuda.kernels import PROBES, DevicePicture, Kernels, SearchMemory

FACES = 5
DIMENSIONS = 512


def measure_kernels(
    device: CudaDevice, kernels: Kernels, frame: tuple[int, int], rows: int, rounds: int, bandwidth: float | None
) -> dict[str, Any]:
    """Letterbox, alignment and search on one frame of (width, height) and a gallery of `rows` vectors."""
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
    out = device.alloc(3 * size[0] * size[1])
    # Faces a fifth of the frame wide, as a camera at a door sees them.
    faces = [ARCFACE_112 * (width / 5 / 112) + (i * width / 6, height / 4) for i in range(FACES)]
    landmarks = upload(device, stream, np.stack(faces).astype(np.float32))
    crops = device.alloc(FACES * 112 * 112 * 3)
    found: dict[str, Any] = {}
    for kind, (picture, read) in sources.items():

        def letterbox(picture: DevicePicture = picture) -> None:
            kernels.letterbox(picture, out.address, size, scaled, stream)

        def align(picture: DevicePicture = picture) -> None:
            kernels.align(picture, landmarks.address, FACES, crops.address, stream)

        times = device_times(device, stream, letterbox, rounds)
        moved = read + 3 * size[0] * size[1]
        share = against_bandwidth(float(np.median(times)), moved, bandwidth)
        found[f"letterbox_{kind}"] = {**figures(times), **share}
        found[f"align_{kind}_{FACES}_faces"] = figures(device_times(device, stream, align, rounds))
    found["search"] = _search(device, kernels, rows, rounds, bandwidth)
    stream.synchronize()
    for memory in (bgr, luma, chroma, out, landmarks, crops):
        memory.free()
    return {"frame": [width, height], "input": list(size), "kernels": found}


def _search(device: CudaDevice, kernels: Kernels, rows: int, rounds: int, bandwidth: float | None) -> dict[str, Any]:
    stream = device.stream()
    rng = np.random.default_rng(1)
    gallery = upload(device, stream, rng.normal(size=(rows, DIMENSIONS)).astype(np.float32))
    probes = upload(device, stream, rng.normal(size=(PROBES, DIMENSIONS)).astype(np.float32))
    memory = SearchMemory.on(device)
    kernels.normalise(gallery.address, rows, DIMENSIONS, stream)
    kernels.normalise(probes.address, PROBES, DIMENSIONS, stream)
    times = device_times(
        device,
        stream,
        lambda: kernels.search(gallery.address, rows, DIMENSIONS, probes.address, PROBES, memory, stream),
        rounds,
    )
    moved = 4 * rows * DIMENSIONS
    stream.synchronize()
    for held in (gallery, probes):
        held.free()
    memory.free()
    return {
        **figures(times),
        **against_bandwidth(float(np.median(times)), moved, bandwidth),
        "rows": rows,
        "dimensions": DIMENSIONS,
        "probes": PROBES,
    }
