"""Each kernel against its CPU reference: `python kernel_checks.py BACKEND CHECK`, on a GPU or on the emulated driver.

--harmless instead of a check: all that provoke no error of the driver, for compute-sanitizer.

A check raises AssertionError where they differ. Grey levels may differ by one: OpenCV rounds in fixed point. It needs
what the runtime needs and nothing else, so that it runs on a device.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2]))

from edge.align import ARCFACE_112, WIDE_96, WIDE_96_SIZE, align
from edge.contract import ModelContract
from edge.cuda import DeviceMemory, Stream, open_device
from edge.cuda.graphs import Recorded
from edge.cuda.kernels import (
    CANDIDATES,
    FIELDS,
    LANDMARKERS,
    PROBES,
    TOP,
    DetectionMemory,
    DevicePicture,
    DeviceVectors,
    Kernels,
    Normalisation,
    SearchMemory,
    Template,
)
from edge.detect.decode import decode
from edge.detect.landmarker import MAX_MOVE, placed, views_of
from edge.detect.nms import nms
from edge.detect.vote import vote
from edge.errors import EngineError
from edge.model_input import to_model
from edge.quality import sharpness, sharpness_of
from edge.types import Face

WIDTH, HEIGHT = 480, 270 + 2  # NV12 needs even sides


class Bench:
    """A device with the kernels, and a way up and down."""

    def __init__(self, backend: str, image: bytes | None) -> None:
        self.device = open_device(backend=backend)
        self.kernels = Kernels(self.device, image)
        self.stream = self.device.stream()
        self._kept: list[DeviceMemory] = []

    def late(self, stream: Stream) -> None:
        """On the emulated driver, whose streams are done at once, has one do its work only where somebody waits."""
        if self.device.info.name == "CPU emulator":
            assert ctypes.CDLL("libcuda.so.1").emulated_late(ctypes.c_void_p(stream.handle), 1) == 0

    def up(self, array: npt.NDArray[Any]) -> DeviceMemory:
        """A copy of an array on the device."""
        raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        pinned, memory = self.device.alloc_pinned(raw.size), self.room((raw.size,), np.uint8)
        pinned.array[:] = raw
        self.device.copy_in(memory, pinned, raw.size, self.stream)
        self.stream.synchronize()
        pinned.free()
        return memory

    def room(self, shape: tuple[int, ...], dtype: Any) -> DeviceMemory:
        """Memory for an array."""
        memory = self.device.alloc(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self._kept.append(memory)  # it is given back with its object
        return memory

    def down(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """What a memory holds."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pinned = self.device.alloc_pinned(size)
        self.device.copy_out(pinned, memory, size, self.stream)
        self.stream.synchronize()
        array = pinned.array.view(dtype).reshape(shape).copy()
        pinned.free()
        return array


def picture() -> npt.NDArray[np.uint8]:
    """Noise with edges, as smooth as photographs are."""
    noise = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.2).astype(np.float32)
    image = np.clip((soft - soft.mean()) * 4 + 128, 0, 255).astype(np.uint8)
    cv2.rectangle(image, (60, 40), (200, 180), (255, 10, 90), -1)
    return image


def nv12_of(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H·3/2, W): luma, then interleaved chroma."""
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    height, width = image.shape[:2]
    chroma = planar[height:].reshape(2, -1)
    return np.concatenate([planar[:height].reshape(-1), chroma.T.reshape(-1)]).reshape(-1, width)


def sources(bench: Bench) -> list[tuple[DevicePicture, npt.NDArray[np.uint8]]]:
    """The picture on the device as BGR with padded rows and as NV12, each with the BGR that OpenCV makes of it."""
    image = picture()
    padded = np.zeros((HEIGHT, 3 * WIDTH + 52), np.uint8)
    padded[:, : 3 * WIDTH] = image.reshape(HEIGHT, -1)
    planes = nv12_of(image)
    luma, chroma = bench.up(planes[:HEIGHT]), bench.up(planes[HEIGHT:])
    return [
        (DevicePicture(bench.up(padded).address, padded.shape[1], WIDTH, HEIGHT), image),
        (
            DevicePicture(luma.address, WIDTH, WIDTH, HEIGHT, chroma.address, WIDTH),
            cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12),
        ),
    ]


def letterboxed(image: npt.NDArray[np.uint8], size: tuple[int, int], scaled: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """As Detector.prepare does it."""
    shrink = cv2.INTER_AREA if image.shape[0] > 2 * scaled[0] else cv2.INTER_LINEAR
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[: scaled[0], : scaled[1]] = cv2.resize(image, scaled[::-1], interpolation=shrink)
    return canvas


LETTERBOXES = [((288, 480), (272, 480)), ((192, 352), (187, 330)), ((64, 128), (61, 108))]
"""Sizes of input and picture: as it is, a little smaller, much smaller (averaged)."""


def check_letterbox(bench: Bench) -> None:
    for source, image in sources(bench):
        for size, scaled in LETTERBOXES:
            out = bench.room((*size, 3), np.uint8)
            bench.kernels.letterbox(source, out.address, size, scaled, bench.stream)
            require_grey(bench.down(out, (*size, 3), np.uint8), letterboxed(image, size, scaled))
            assert not bench.down(out, (*size, 3), np.uint8)[scaled[0] :].any()


def check_letterbox_normalised(bench: Bench) -> None:
    mean, std = (127.5, 120.0, 110.0), (128.0, 64.0, 32.0)
    for rgb in (False, True):
        contract = ModelContract(
            "detector", None, color="rgb" if rgb else "bgr", layout="nchw", dtype="float32", mean=mean, std=std
        )
        for source, image in sources(bench):
            for size, scaled in LETTERBOXES:
                out = bench.room((3, *size), np.float32)
                bench.kernels.letterbox(source, out.address, size, scaled, bench.stream, Normalisation(mean, std, rgb))
                want = to_model(letterboxed(image, size, scaled)[None], contract)[0]
                levels = np.array(std).reshape(3, 1, 1)
                require_grey(bench.down(out, (3, *size), np.float32) * levels, want * levels)


def check_align(bench: Bench) -> None:
    poses = [(1.0, 0.2, 50, 60), (1.6, -0.5, 100, 20), (2.3, 0.1, 120, 10), (0.5, 0.3, 200, 100), (4.1, 0.0, -50, -40)]
    landmarks = np.stack([pose(*values) for values in poses] + [np.full((5, 2), 30, np.float32)])
    for source, image in sources(bench):
        crops = bench.room((len(landmarks), 112, 112, 3), np.uint8)
        bench.kernels.align(source, bench.up(landmarks).address, len(landmarks), crops.address, bench.stream)
        found = bench.down(crops, (len(landmarks), 112, 112, 3), np.uint8)
        for crop, points in zip(found[:-1], landmarks[:-1], strict=True):
            require_grey(crop, align(image, points))
        assert not found[-1].any(), "landmarks that coincide give a black crop"


def check_align_wide(bench: Bench) -> None:
    """As landmarkers look: of any pose, at the frame's edges and beyond, far larger than the crop and far smaller."""
    rng = np.random.default_rng(8)
    landmarks = np.stack([anywhere(rng) for _ in range(14)])
    for source, image in sources(bench):
        crops = bench.room((len(landmarks), WIDE_96_SIZE, WIDE_96_SIZE, 3), np.uint8)
        bench.kernels.align(
            source, bench.up(landmarks).address, len(landmarks), crops.address, bench.stream, LANDMARKERS
        )
        found = bench.down(crops, (len(landmarks), WIDE_96_SIZE, WIDE_96_SIZE, 3), np.uint8)
        for crop, points in zip(found, landmarks, strict=True):
            require_grey(crop, align(image, points, WIDE_96, WIDE_96_SIZE))
        assert found.any(axis=(1, 2, 3)).sum() > 10, "of most the picture is seen"


def anywhere(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Landmarks of a face in, at or beside the picture, each of them somewhat astray."""
    scale = float(np.exp(rng.uniform(np.log(0.15), np.log(5))))
    x, y = rng.uniform(-0.1, 1.1, 2) * (WIDTH, HEIGHT) - 56 * scale
    return (pose(scale, rng.uniform(-3.1, 3.1), x, y) + rng.normal(0, 4 * scale, (5, 2))).astype(np.float32)


def check_place(bench: Bench) -> None:
    """Landmarks go where the CPU takes them, or stay: too far, looked at before, coinciding, next to either limit."""
    rng = np.random.default_rng(9)
    eyes = float(np.linalg.norm(WIDE_96[1] - WIDE_96[0]))
    for count in (1, 5, 33, 200):
        landmarks = np.stack([anywhere(rng) for _ in range(count)])
        offsets = rng.normal(0, rng.uniform(0.1, 12, (count, 1)), (count, 10)).astype(np.float32)
        done = (rng.random(count) < 0.3).astype(np.int32)
        for number in range(0, count, 5):
            # All five by as much in one direction: just within what is allowed, or just beyond.
            turn, far = rng.uniform(0, 6.28), MAX_MOVE * eyes * rng.choice([0.999, 1.001])
            offsets[number] = np.tile([np.cos(turn) * far, np.sin(turn) * far], 5)
        for number in range(3, count, 7):
            landmarks[number] = landmarks[number, :1] + rng.choice([0, 1e-6])
        for number in range(4, count, 50):
            offsets[number] = 1e30
        there = bench.up(landmarks)
        bench.kernels.place(bench.up(offsets).address, bench.up(done).address, count, there.address, bench.stream)
        found = bench.down(there, landmarks.shape, np.float32)
        box = np.zeros(4, np.float32)
        faces = [Face(box, points, 1.0, refined=bool(flag)) for points, flag in zip(landmarks, done, strict=True)]
        views = {number: view for number, view in views_of(faces).items() if not done[number]}
        given = (offsets[list(views)].reshape(-1, 5, 2) + WIDE_96).astype(np.float32)
        wanted = placed(faces, views, given)
        for points, face, before in zip(found, wanted, landmarks, strict=True):
            if face.landmarks is before or not face.refined:
                np.testing.assert_array_equal(points, before)
            np.testing.assert_allclose(points, face.landmarks, rtol=1e-6, atol=1e-4)
        if count == 200:
            moved = sum(
                not np.array_equal(face.landmarks, before) for face, before in zip(wanted, landmarks, strict=True)
            )
            assert 40 < moved < 130, f"{moved} of 200 were placed anew"


def check_place_no_numbers(bench: Bench) -> None:
    """What is no number is no landmark: the host must see it, as the CPU's way refuses it; others are as they were."""
    for bad in (np.nan, np.inf, -np.inf):
        offsets = np.ones((4, 10), np.float32)
        offsets[1, 7] = offsets[2, 0] = bad
        landmarks, done = np.stack([ARCFACE_112.astype(np.float32)] * 4), np.array([0, 0, 1, 0], np.int32)
        there = bench.up(landmarks)
        bench.kernels.place(bench.up(offsets).address, bench.up(done).address, 4, there.address, bench.stream)
        found = bench.down(there, landmarks.shape, np.float32)
        assert np.isnan(found[1]).all()
        np.testing.assert_array_equal(found[2], landmarks[2])
        assert np.isfinite(found[[0, 3]]).all()
        assert (found[0] != landmarks[0]).all()


def check_sharpness(bench: Bench) -> None:
    """Of noise, of photographs' smoothness, of the most there can be, of nothing: to the last bit of the sums."""
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    checks = np.indices((112, 112)).sum(axis=0) % 2 * 255
    crops = [
        noise,
        cv2.GaussianBlur(noise, (0, 0), 2),
        np.repeat(checks[..., None], 3, axis=2),
        np.full_like(noise, 90),
    ]
    sums = bench.room((len(crops), 2), np.int64)
    bench.kernels.sharpness(bench.up(np.stack(crops).astype(np.uint8)).address, len(crops), sums.address, bench.stream)
    found = bench.down(sums, (len(crops), 2), np.int64)
    for crop, (total, squares) in zip(crops, found.tolist(), strict=True):
        grey = cv2.cvtColor(crop.astype(np.uint8)[20:108, 22:90], cv2.COLOR_BGR2GRAY)
        want = cv2.Laplacian(grey, cv2.CV_64F)
        assert (total, squares) == (want.sum(), (want**2).sum())
        wanted = sharpness(crop.astype(np.uint8))
        assert abs(sharpness_of(total, squares) - wanted) <= max(1e-12 * wanted, 1e-9)


def pose(scale: float, angle: float, x: float, y: float) -> npt.NDArray[np.float32]:
    """Landmarks of a face `scale` times the crop's size, turned and moved."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (ARCFACE_112 @ turn.T + (x, y)).astype(np.float32)


def check_detect(bench: Bench) -> None:
    images, size, min_score, max_iou, limit = 3, (96, 160), 0.6, 0.3, 20
    heads = random_heads(images, size)
    # The first image: scores that tie, so that only the order of the cells decides. The last: nothing to be found.
    heads["cls_8"][0], heads["obj_8"][0] = np.round(heads["cls_8"][0], 1), np.round(heads["obj_8"][0], 1)
    for stride in (8, 16, 32):
        heads[f"cls_{stride}"][2] *= 0.3
    # The second image: two neighbours answer for every face, and vote on where it is.
    heads["bbox_8"][1, 1::2] = heads["bbox_8"][1, ::2] - np.float32([0.7, 0.2, 0, 0])
    heads["obj_8"][1] = heads["obj_8"][1] * 0.3 + 0.7
    memory = DetectionMemory.on(bench.device, images, limit)
    # What no face was kept for is brought down too, and compute-sanitizer counts bytes that nobody wrote.
    bench.device.zero(memory.faces, memory.faces.size, bench.stream)
    addresses = {name: bench.up(head).address for name, head in heads.items()}
    back = (1.5, 0.75)
    bench.kernels.detect(addresses, images, size, min_score, max_iou, back, memory, bench.stream)
    counts = bench.down(memory.kept, (images,), np.int32)
    faces = bench.down(memory.faces, (images, limit, FIELDS), np.float32)
    some = changed = 0
    for image in range(images):
        found = decode(heads, image, *size, min_score)
        kept = nms(found.boxes, found.scores, max_iou, limit)
        assert counts[image] == len(kept), f"image {image}: {counts[image]} faces, {len(kept)} were expected"
        mine, factors = faces[image, : len(kept)], np.tile(np.float32(back), 2)
        voted = vote(found, kept)
        np.testing.assert_allclose(mine[:, :4], voted.boxes * factors, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(
            mine[:, 4:14].reshape(-1, 5, 2), voted.landmarks * np.float32(back), rtol=1e-4, atol=1e-2
        )
        np.testing.assert_allclose(mine[:, 14], found.scores[kept], rtol=1e-5)
        some += len(kept)
        moved = np.abs(voted.landmarks - found.landmarks[kept]).max(axis=(1, 2), initial=0) > 1
        changed += int((moved & (np.abs(voted.boxes - found.boxes[kept]).max(axis=1, initial=0) > 0.5)).sum())
    assert changed > 5, "nobody voted"
    assert counts[0] == limit, "the limit was not reached"
    assert counts[1] > 0
    assert counts[2] == 0


def random_heads(images: int, size: tuple[int, int]) -> dict[str, npt.NDArray[np.float32]]:
    """Heads with many overlapping faces."""
    rng = np.random.default_rng(3)
    heads = {}
    for stride in (8, 16, 32):
        cells = (size[0] // stride) * (size[1] // stride)
        heads[f"cls_{stride}"] = rng.random((images, cells, 1), np.float32)
        heads[f"obj_{stride}"] = rng.random((images, cells, 1), np.float32)
        heads[f"bbox_{stride}"] = rng.normal(0, 0.7, (images, cells, 4)).astype(np.float32)
        heads[f"kps_{stride}"] = rng.normal(0, 1, (images, cells, 10)).astype(np.float32)
    return heads


def check_search(bench: Bench) -> None:
    rng = np.random.default_rng(11)
    for rows, dimensions, count in ((5, 128, 1), (1003, 512, PROBES), (300, 96, 3), (40, 64, 2 * PROBES + 3)):
        vectors = rng.normal(size=(rows, dimensions)).astype(np.float32)
        probes = rng.normal(size=(count, dimensions)).astype(np.float32)
        if rows > 900:
            vectors[900] = vectors[17]  # two rows that tie
            probes[0] = vectors[17]
        gallery, asked = bench.up(vectors), bench.up(probes)
        memory = SearchMemory.on(bench.device, max(count, PROBES))
        bench.kernels.normalise(gallery.address, rows, dimensions, bench.stream)
        bench.kernels.normalise(asked.address, count, dimensions, bench.stream)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(bench.down(gallery, vectors.shape, np.float32), unit, rtol=1e-5, atol=1e-6)
        there = DeviceVectors(gallery.address, rows, dimensions)
        bench.kernels.search(there, asked.address, count, memory, bench.stream)
        scores = bench.down(memory.scores, (count, TOP), np.float32)
        places = bench.down(memory.groups, (count, TOP), np.int32)
        every = (probes / np.linalg.norm(probes, axis=1, keepdims=True)) @ unit.T
        want = np.argsort(-every, axis=1, kind="stable")[:, :TOP]
        some = min(rows, TOP)
        np.testing.assert_array_equal(places[:, :some], want)
        np.testing.assert_allclose(scores[:, :some], np.take_along_axis(every, want, 1), rtol=1e-4, atol=1e-5)
        assert (places[:, some:] == -1).all()
        if rows > 900:
            assert places[0, :2].tolist() == [17, 900], "of equal rows the first comes first"


def check_search_by_groups(bench: Bench) -> None:
    """Each group once, by its best row, however many rows of it are better than anybody else's."""
    rng = np.random.default_rng(12)
    for rows, groups in ((600, 3), (1000, 40), (64, 64)):
        vectors = rng.normal(size=(rows, 64)).astype(np.float32)
        owners = rng.integers(0, groups, rows).astype(np.int32)
        probes = rng.normal(size=(PROBES, 64)).astype(np.float32)
        crowd = owners == owners[5]
        vectors[crowd] = probes[0] + 0.3 * vectors[crowd]  # of this group all rows are nearest
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        probes /= np.linalg.norm(probes, axis=1, keepdims=True)
        memory = SearchMemory.on(bench.device)
        there = DeviceVectors(bench.up(vectors).address, rows, 64, bench.up(owners).address)
        bench.kernels.search(there, bench.up(probes).address, PROBES, memory, bench.stream)
        scores = bench.down(memory.scores, (PROBES, TOP), np.float32)
        found = bench.down(memory.groups, (PROBES, TOP), np.int32)
        every = probes @ vectors.T
        whose = np.unique(owners)
        best = np.stack([every[:, owners == group].max(axis=1) for group in whose], axis=1)
        want = np.argsort(-best, axis=1, kind="stable")[:, :TOP]
        some = min(len(whose), TOP)
        np.testing.assert_array_equal(found[:, :some], whose[want])
        np.testing.assert_allclose(scores[:, :some], np.take_along_axis(best, want, 1), rtol=1e-4, atol=1e-5)
        assert (found[:, some:] == -1).all()
        assert found[0, 0] == owners[5]


def check_refusals(bench: Bench) -> None:
    memory = DetectionMemory.on(bench.device, 1, 4)
    for refused in (
        lambda: bench.kernels.search(
            DeviceVectors(0, 10, 128), 0, PROBES + 1, SearchMemory.on(bench.device), bench.stream
        ),
        lambda: bench.kernels.detect({}, 2, (64, 64), 0.5, 0.3, (1, 1), memory, bench.stream),
        lambda: DevicePicture(0, 5, 5, 4, chroma=1, chroma_pitch=5),
        lambda: Template(129, 1.0),
        lambda: bench.device.alloc(0),
        lambda: bench.device.load_kernels(bench_image(), {"no_such_kernel": "P"}),
    ):
        with refused_with(r"^[^\n]+$"):
            refused()


def check_version(bench: Bench) -> None:
    """A fat binary that was compiled from other sources is refused before any of its kernels can run."""
    foreign = patch("edge.cuda.kernels.VERSION", "arcedge_kernels_1")
    with foreign, refused_with(r"do not belong to this arcedge .*; build them with"):
        Kernels(bench.device, bench_image())


def check_newer_cuda(bench: Bench) -> None:
    """What the driver does not load was built with a newer CUDA: to build it again with the same one helps nobody."""
    speaks = bench.device.info.cuda
    with refused_with(rf"does not load .* newer CUDA than the driver's {speaks}, .* no newer than"):
        Kernels(bench.device, b"newer than the driver")


def check_memory(bench: Bench) -> None:
    """What goes up comes down, zeros are zeros, an event's time is not negative, and graphs aside all is given back."""
    data = np.random.default_rng(1).integers(0, 256, 100_003, dtype=np.uint8)
    memory = bench.up(data)
    np.testing.assert_array_equal(bench.down(memory, data.shape, np.uint8), data)
    bench.device.zero(memory, 1000, bench.stream)
    assert not bench.down(memory, (1000,), np.uint8).any()
    first, second = bench.device.event(), bench.device.event()
    first.record(bench.stream)
    second.record(bench.stream)
    second.synchronize()
    assert second.milliseconds_since(first) >= 0
    first.close()
    first.close()
    memory.free()
    memory.free()
    bench.stream.close()
    assert CANDIDATES > 0


def check_waiting(bench: Bench) -> None:
    """A stream waits for a mark of another, and what was queued before the mark is there."""
    data = np.random.default_rng(2).integers(0, 256, 50_000, dtype=np.uint8)
    pinned, back = bench.device.alloc_pinned(data.size), bench.device.alloc_pinned(data.size)
    memory, other, mark = bench.room(data.shape, np.uint8), bench.device.stream(), bench.device.event()
    bench.late(bench.stream)
    pinned.array[:] = data
    bench.device.copy_in(memory, pinned, data.size, bench.stream)
    mark.record(bench.stream)
    bench.device.zero(memory, 100, bench.stream)  # behind the mark: whether it is done by then nobody may ask
    other.wait(mark)
    bench.device.copy_out(back, memory, data.size, other)
    other.synchronize()
    np.testing.assert_array_equal(back.array[100:], data[100:])
    bench.stream.synchronize()
    for held in (pinned, back):
        held.free()
    mark.close()
    other.close()


class TwoStreams:
    """Work that takes two streams: a copy up on the first, zeros on the second, a copy down on the first."""

    def __init__(self, bench: Bench, size: int) -> None:
        self.size, self.device = size, bench.device
        self.first, self.second = bench.stream, bench.device.stream()
        self.marks = [bench.device.event() for _ in range(2)]
        self.up, self.back = bench.device.alloc_pinned(size), bench.device.alloc_pinned(size)
        self.memory = bench.room((size,), np.uint8)

    def queue(self) -> None:
        self.device.copy_in(self.memory, self.up, self.size, self.first)
        self.marks[0].record(self.first)
        self.second.wait(self.marks[0])
        self.device.zero(self.memory, 100, self.second)
        self.marks[1].record(self.second)
        self.first.wait(self.marks[1])
        self.device.copy_out(self.back, self.memory, self.size, self.first)

    def require(self, run: Callable[[], None], seed: int) -> None:
        """That it does what it should on these bytes."""
        data = np.random.default_rng(seed).integers(1, 256, self.size, dtype=np.uint8)
        self.up.array[:], self.back.array[:] = data, 7
        run()
        self.first.synchronize()
        assert not self.back.array[:100].any()
        np.testing.assert_array_equal(self.back.array[100:], data[100:])

    def close(self) -> None:
        for held in (self.up, self.back):
            held.free()
        for mark in self.marks:
            mark.close()
        self.second.close()


def check_recording(bench: Bench) -> None:
    """One graph of two streams that wait for each other, on bytes that change; and the same work plainly after it."""
    work = TwoStreams(bench, 50_000)
    recorded = Recorded(work.first, work.queue, plain=2)
    for run in range(6):
        work.require(recorded.start, run)
        assert recorded.is_graph == (run >= 2), recorded.graphless
    work.require(work.queue, 6)
    recorded.close()
    work.close()


def check_recording_that_fails(bench: Bench) -> None:
    """What waits or takes memory cannot be recorded, nor what another stream is not waited for; it is queued plainly
    then, on all its streams, and recorded where that is mended.
    """
    work = TwoStreams(bench, 50_000)

    def waiting() -> None:
        work.queue()
        work.first.synchronize()

    def waiting_on_the_other() -> None:
        work.marks[0].record(work.first)
        work.second.wait(work.marks[0])
        work.second.synchronize()
        work.queue()

    def taking() -> None:
        bench.device.alloc(1 << 20).free()
        work.queue()

    def not_waited_for() -> None:
        work.queue()
        work.device.zero(work.memory, 100, work.second)

    for seed, enqueue in enumerate((waiting, waiting_on_the_other, taking, not_waited_for)):
        recorded = Recorded(work.first, enqueue)
        for _ in range(3):
            work.require(recorded.start, seed)
        work.second.synchronize()
        assert not recorded.is_graph
        assert recorded.graphless.startswith("CUDA: "), recorded.graphless
        mended = Recorded(work.first, work.queue, plain=0)
        work.require(mended.start, seed)
        assert mended.is_graph, mended.graphless
        mended.close()
    work.close()


@contextmanager
def refused_with(words: str) -> Iterator[None]:
    """Asserts that an EngineError is raised, in words that the pattern is found in."""
    said = None
    try:
        yield
    except EngineError as error:
        said = str(error)
    assert said is not None, f"nothing was refused: {words}"
    assert re.search(words, said), said


def require_grey(found: npt.NDArray[Any], want: npt.NDArray[Any]) -> None:
    """At most one grey level apart, and hardly ever that."""
    difference = np.abs(found.astype(np.float64) - want.astype(np.float64))
    assert difference.max() <= 1.001, f"{difference.max():.2f} grey levels apart"
    assert difference.mean() <= 0.2, f"{difference.mean():.3f} grey levels apart on average"


def bench_image() -> bytes:
    """The fat binary; anything at all on the emulated driver, which has the kernels built in."""
    from edge.cuda.driver import device_info
    from edge.cuda.kernels import read_fat_binary

    return b"emulated" if device_info().name == "CPU emulator" else read_fat_binary()


CHECKS: dict[str, Callable[[Bench], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}

PROVOKING = {"refusals", "version", "newer_cuda", "recording_that_fails"}
"""Checks of what the driver refuses."""

if __name__ == "__main__":
    asked = sys.argv[2:] or list(CHECKS)
    for name in [each for each in CHECKS if each not in PROVOKING] if asked == ["--harmless"] else asked:
        CHECKS[name](Bench(sys.argv[1], bench_image()))
        print(name, "agrees")
