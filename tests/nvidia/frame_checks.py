"""Frames through the GPU, with the models that ship: `python frame_checks.py BACKEND VERSION FOLDER BUNDLE [CHECK …]`.

On the emulated driver, with the stand-in for the tensorrt package: the kernels are the real ones, the models are run by
ONNX Runtime on the addresses they are given.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import fake_tensorrt  # noqa: E402
from emulated_room import require_all_given_back  # noqa: E402

from benchmarks.demo.video import portraits  # noqa: E402
from benchmarks.gpu import engines  # noqa: E402
from benchmarks.gpu.engines import aligned_crops, measure_accuracy  # noqa: E402
from benchmarks.gpu.frame import as_nv12, crowd, frame_precisions, measure_frame  # noqa: E402
from benchmarks.gpu.measure import main as measure  # noqa: E402
from edge import gpu_frames  # noqa: E402
from edge.align import CROP_SIZE, align  # noqa: E402
from edge.analyze import AnalyzerOptions, FaceAnalyzer, Preprocess  # noqa: E402
from edge.bundle import Bundle  # noqa: E402
from edge.cli.main import main as edge  # noqa: E402
from edge.cuda.kernels import Kernels  # noqa: E402
from edge.device_engines import as_probes, build_engines, real_pictures  # noqa: E402
from edge.engines import tensorrt  # noqa: E402
from edge.engines.tensorrt.session import TensorRtSession  # noqa: E402
from edge.errors import EngineError, InputError  # noqa: E402
from edge.gpu_gallery import GpuGallery  # noqa: E402
from edge.nv12 import Nv12  # noqa: E402
from edge.pictures import find_pictures  # noqa: E402
from edge.quality import measure as measured_face  # noqa: E402
from edge.types import Face, Image, Picture  # noqa: E402

driver = ctypes.CDLL("libcuda.so.1")
LANDMARKS = 5 * 2 * 4
ROUGH = LANDMARKS + 4
"""Bytes up of a face that the landmarker has to look at: besides, that it has not."""
VIEW = 96 * 96 * 3


def opened(bundle: Bundle, preprocess: Preprocess = "auto", engine: str = "tensorrt") -> FaceAnalyzer:
    return FaceAnalyzer(bundle, AnalyzerOptions(engine=engine, preprocess=preprocess))


def portrait() -> Image:
    """(512, 512, 3) BGR, one face."""
    return np.ascontiguousarray(astronaut()[..., ::-1])


def pair() -> Image:
    """(400, 740, 3) BGR, two faces; it is scaled down, and its scaled height is no multiple of the stride."""
    small = portrait()[:400:, 60:430]
    return np.ascontiguousarray(np.concatenate([small, small[:, ::-1]], axis=1))


def placed_by(analyzer: FaceAnalyzer, faces: list[Face]) -> list[Face]:
    """The faces with the landmarks that the GPU just cut their crops by."""
    assert analyzer.gpu_frames is not None
    points = analyzer.gpu_frames._points(len(faces))
    return [replace(face, landmarks=landmarks) for face, landmarks in zip(faces, points, strict=True)]


def require_placed_as(wanted: list[Face], found: list[Face], rough: list[Face], apart: float = 0.02) -> None:
    """Landmarks are the CPU's within a few hundredths of a pixel, as views are within a grey level; and not rough."""
    for face, other, before in zip(found, wanted, rough, strict=True):
        np.testing.assert_allclose(face.landmarks, other.landmarks, atol=apart)
        assert other.refined
        assert np.abs(face.landmarks - before.landmarks).max() > 1, "nobody looked"


def check_same_answers(bundle: Bundle) -> None:
    """Faces, landmarks, crops and embeddings are those of the CPU, frame by frame, of two sizes in turns."""
    with opened(bundle) as gpu, opened(bundle, "cpu", "onnxruntime") as cpu:
        assert gpu.describe()["preprocess"] == "gpu"
        for image, count in ((portrait(), 1), (pair(), 2), (portrait(), 1), (pair(), 2), (pair(), 2)):
            found, wanted = gpu.detect(image), cpu.detect(image)
            assert len(found) == len(wanted) == count
            for face in found:  # two mirrored faces score alike, so that either may come first
                other = min(wanted, key=lambda each: float(np.abs(each.box - face.box).max()))
                np.testing.assert_allclose(face.box, other.box, atol=0.6)
                np.testing.assert_allclose(face.landmarks, other.landmarks, atol=0.6)
                assert abs(face.score - other.score) < 0.01
            crops = gpu.align(image, found)
            placed = placed_by(gpu, found)
            require_placed_as(cpu.refine(image, found), placed, found)
            for crop, face in zip(crops, placed, strict=True):
                assert np.abs(crop.astype(int) - align(image, face.landmarks)).max() <= 1
            np.testing.assert_allclose(gpu.embed(crops), cpu.embed(crops), atol=1e-5)
            np.testing.assert_allclose(gpu.embed(crops.copy()), cpu.embed(crops), atol=1e-5)
            whole = np.sum(gpu.embed(crops) * cpu.embed(cpu.align(image, found)), axis=1)
            assert whole.min() > 0.9999, "from the detector's landmarks on, each its own way"


def check_crops_of_before(bundle: Bundle) -> None:
    """Crops that were cut last are in the embedder's input until others are embedded, and no longer."""
    image = pair()
    with opened(bundle) as gpu:
        crops = gpu.align(image, gpu.detect(image))
        wanted = gpu.embed(crops)
        others = gpu.embed(crops[::-1].copy())
        np.testing.assert_allclose(others, wanted[::-1], atol=1e-5)
        np.testing.assert_allclose(gpu.embed(crops), wanted, atol=1e-5)


def check_up_once(bundle: Bundle) -> None:
    """A frame goes up once and its crops never; after two frames the search is one call; nothing is allocated."""
    image = portrait()
    with opened(bundle) as gpu:
        for _ in range(3):
            gpu.embed(gpu.align(image, gpu.detect(image)))
        allocations, graphs = driver.emulated_allocations(), driver.emulated_graph_launches()
        up, down = driver.emulated_bytes_up(), driver.emulated_bytes_down()
        faces = gpu.detect(image)
        assert driver.emulated_graph_launches() == graphs + 1
        assert driver.emulated_bytes_up() - up == image.nbytes
        assert driver.emulated_bytes_down() - down < 10_000, "faces come down, not maps"
        gpu.embed(gpu.align(image, faces))
        assert driver.emulated_bytes_up() - up == image.nbytes + ROUGH
        assert driver.emulated_allocations() == allocations
        # Another frame that was not searched, as between two searches: it goes up for its crops.
        other = image[::-1].copy()
        faces = [replace(face, refined=True) for face in faces]  # it is upside down there, and looks like no face
        crops = gpu.align(other, faces)
        assert driver.emulated_bytes_up() - up == 2 * image.nbytes + ROUGH + LANDMARKS
        assert np.abs(crops[0].astype(int) - align(other, faces[0].landmarks)).max() <= 1


def check_a_search_that_fails(bundle: Bundle) -> None:
    """The frame of before is not on the device any more, where another one went up and its search did not start."""
    image = portrait()
    with opened(bundle) as gpu:
        faces = gpu.detect(image)
        wanted = gpu.align(image, faces)
        fake_tensorrt.executes = False
        with pytest.raises(EngineError, match="could not start the engine"):
            gpu.detect(np.ascontiguousarray(image[::-1]))
        fake_tensorrt.executes = True
        np.testing.assert_array_equal(gpu.align(image, faces), wanted)


def check_nv12(bundle: Bundle) -> None:
    """NV12 goes up as it is, half of BGR's bytes, and gives what its image gives on the CPU, in turns with BGR."""
    frames = [as_nv12(portrait()), as_nv12(pair())]
    with opened(bundle) as gpu, opened(bundle, "cpu", "onnxruntime") as cpu:
        for turn in range(6):
            frame = Nv12(frames[turn % 2].planes)
            up = driver.emulated_bytes_up()
            found = gpu.detect(frame)
            assert driver.emulated_bytes_up() - up == frame.planes.nbytes == np.prod(frame.shape) // 2
            crops = gpu.align(frame, found)
            assert driver.emulated_bytes_up() - up == frame.planes.nbytes + len(found) * ROUGH
            placed = placed_by(gpu, found)
            vectors = gpu.embed(crops)
            assert frame._bgr is None, "nobody needed an image"
            wanted = cpu.detect(frame)
            assert len(found) == len(wanted) == 1 + turn % 2
            for face in found:
                other = min(wanted, key=lambda each: float(np.abs(each.box - face.box).max()))
                np.testing.assert_allclose(face.box, other.box, atol=0.6)
            require_placed_as(cpu.refine(frame, found), placed, found)
            for crop, face in zip(crops, placed, strict=True):
                assert np.abs(crop.astype(int) - align(frame.bgr, face.landmarks)).max() <= 1
            np.testing.assert_allclose(vectors, cpu.embed(crops), atol=1e-5)
            assert len(gpu.detect(frame.bgr)) == len(found), "the same size as BGR, which has a plan of its own"
        large = Nv12(frames[0].planes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gpu_frames, "MOST_PIXELS", 512 * 511)
            assert len(gpu.detect(large)) == 1
        assert large._bgr is not None, "the CPU had to look"


def check_memory_returns(bundle: Bundle) -> None:
    before, events = driver.emulated_allocations(), driver.emulated_events()
    opened(bundle).close()
    assert driver.emulated_allocations() == before
    assert driver.emulated_events() == events


def check_failed_openings_give_everything_back(bundle: Bundle) -> None:
    """Wherever the device runs out while the way through it, or the gallery on it, is opened."""
    with opened(bundle) as gpu:
        frames = gpu.gpu_frames
        assert frames is not None

        def another() -> gpu_frames.GpuFrames:
            return gpu_frames.GpuFrames(frames._cpu, frames._detection, frames._embedding, frames._landmarker._session)  # type: ignore[union-attr]

        def gallery() -> GpuGallery:
            return GpuGallery(frames.device, 512, most_bytes=1 << 20)

        require_all_given_back(another, least=20)
        require_all_given_back(gallery, least=10)


def check_contexts(bundle: Bundle) -> None:
    """A single photo goes through the CPU and takes TensorRT's context where there is one; frames find it again."""
    image = portrait()
    with opened(bundle) as gpu, opened(bundle, "cpu", "onnxruntime") as cpu:
        wanted = cpu.detect(image)[0].box
        for _ in range(3):
            for _ in range(3):
                np.testing.assert_allclose(gpu.detect(image)[0].box, wanted, atol=0.6)
            assert gpu.main_face(image[:320, 60:420].copy()) is not None


def check_a_crowd(bundle: Bundle) -> None:
    """More faces than an engine takes at once are embedded in several runs, whoever cut them."""
    image = portrait()
    with opened(bundle) as gpu, opened(bundle, "cpu", "onnxruntime") as cpu:
        crops = gpu.align(image, gpu.detect(image) * 70)
        assert len(crops) == 70
        np.testing.assert_allclose(gpu.embed(crops), np.repeat(cpu.embed(crops[:1]), 70, axis=0), atol=1e-5)


def check_what_the_cpu_does(bundle: Bundle) -> None:
    """Frames that are too large, no faces, landmarks that coincide, crops from elsewhere: as without a GPU."""
    image = portrait()
    with opened(bundle) as gpu, pytest.MonkeyPatch.context() as patch:
        assert gpu.detect(np.zeros((64, 64, 3), np.uint8)) == []
        assert gpu.align(image, []).shape == (0, CROP_SIZE, CROP_SIZE, 3)
        point = Face(np.array([5, 5, 9, 9], np.float32), np.full((5, 2), 7, np.float32), 0.9)
        with pytest.raises(ValueError, match="coincide"):
            gpu.align(image, [point])
        many = gpu.detect(image) * 100
        assert len(gpu.align(image, many)) == 100
        up = driver.emulated_bytes_up()
        patch.setattr(gpu_frames, "MOST_PIXELS", 512 * 511)
        faces = gpu.detect(image)
        assert len(faces) == 1
        crops = gpu.align(image, faces)
        assert driver.emulated_bytes_up() - up == image.nbytes + VIEW, "inputs of two models, prepared by the CPU"
        (face,) = gpu.refine(image, faces)
        assert face.refined
        assert np.array_equal(crops[0], align(image, face.landmarks))
        seen = gpu.recognise(image, faces, None)
        assert seen.qualities == [measured_face(faces[0], crops[0])]
        np.testing.assert_allclose(seen.vectors, gpu.embed(crops), atol=1e-6)


def check_looked_at_once(bundle: Bundle) -> None:
    """Faces that were looked at stay as they are, beside others that were not."""
    image = pair()
    with opened(bundle) as gpu, opened(bundle, "cpu", "onnxruntime") as cpu:
        session = gpu._sessions[2]
        assert session.range_of(session.inputs[0]) == ((1, 96, 96, 3), (64, 96, 96, 3))  # type: ignore[attr-defined]
        rough = gpu.detect(image)
        refined = cpu.refine(image, rough)
        for faces in ([rough[0], refined[1]], [refined[0], rough[1]], refined, rough):
            crops = gpu.align(image, faces)
            placed = placed_by(gpu, faces)
            for face, given, wanted, crop in zip(placed, faces, refined, crops, strict=True):
                np.testing.assert_allclose(face.landmarks, wanted.landmarks, atol=0.02)
                assert not given.refined or np.array_equal(face.landmarks, given.landmarks)
                assert np.abs(crop.astype(int) - align(image, face.landmarks)).max() <= 1
            seen = gpu.recognise(image, faces, None)
            assert seen.vectors is not None
            np.testing.assert_allclose(seen.vectors, cpu.embed(crops), atol=1e-5)
            for quality, face, crop in zip(seen.qualities, faces, crops, strict=True):
                assert astuple(quality) == pytest.approx(astuple(measured_face(face, crop)), rel=1e-9)
        # What was placed askew stays so, and is no reason to look again.
        askew = [replace(face, landmarks=face.landmarks + np.float32(9), refined=True) for face in rough]
        up = driver.emulated_bytes_up()
        crops = gpu.align(image, askew)
        assert driver.emulated_bytes_up() - up == 2 * LANDMARKS
        for crop, face in zip(crops, askew, strict=True):
            assert np.abs(crop.astype(int) - align(image, face.landmarks)).max() <= 1
        # What the landmarker would move too far keeps the detector's landmarks, as on the CPU.
        moved = (replace(rough[0], landmarks=rough[0].landmarks + np.float32(by)) for by in range(10, 60))
        astray = [next(face for face in moved if stays(cpu, image, face)), rough[1]]
        gpu.align(image, astray)
        kept = cpu.refine(image, astray)
        assert [stays(cpu, image, face) for face in astray] == [True, False]
        for face, wanted in zip(placed_by(gpu, astray), kept, strict=True):
            np.testing.assert_allclose(face.landmarks, wanted.landmarks, atol=0.02)


def stays(cpu: FaceAnalyzer, image: Image, face: Face) -> bool:
    """Whether the CPU's landmarker leaves a face's landmarks where the detector placed them."""
    return bool(np.array_equal(cpu.refine(image, [face])[0].landmarks, face.landmarks))


def check_streams_wait_for_each_other(bundle: Bundle) -> None:
    """However late a model's stream gets to work, the landmarker sees its crops and the embedder the landmarks."""
    image = pair()
    with pytest.MonkeyPatch.context() as plainly, opened(bundle) as gpu:
        plainly.setattr(gpu_frames, "PLAIN_RUNS", 1000)
        faces = gpu.detect(image)
        wanted, points = gpu.recognise(image, faces, None).vectors, placed_by(gpu, faces)
        streams = [session.stream for session in gpu._sessions]  # type: ignore[attr-defined]

        def alike(late: tuple[int, ...]) -> bool:
            """Whether faces are placed and embedded as before, after another frame's were."""
            gpu.recognise(image[::-1].copy(), faces, None)
            for number in late:
                assert driver.emulated_late(ctypes.c_void_p(streams[number].handle), 1) == 0
            try:
                found = gpu.recognise(image, faces, None).vectors
            finally:
                for number in late:
                    driver.emulated_late(ctypes.c_void_p(streams[number].handle), 0)
            now = placed_by(gpu, faces)
            same = [np.array_equal(a.landmarks, b.landmarks) for a, b in zip(now, points, strict=True)]
            return all(same) and found is not None and bool(np.array_equal(found, wanted))

        cases = ((), (1,), (2,), (1, 2))
        for late in cases:
            assert alike(late), late
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(streams[0]), "wait", lambda self, event: None)
            assert [alike(late) for late in cases] == [True, False, False, False], "luck was not told from order"


def recognised(gpu: FaceAnalyzer, image: Picture, faces: list[Face], threshold: float | None) -> list[Any]:
    """All that recognition tells, to the last bit."""
    frames = gpu.gpu_frames
    assert frames is not None
    seen = frames.recognise(image, faces, threshold)
    assert seen is not None
    lists = [] if seen.sought is None else [seen.sought.shortlist.groups, seen.sought.shortlist.scores]
    return [seen.vectors, seen.sharpness, *lists, *(face.landmarks for face in placed_by(gpu, faces))]


def require_same(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def check_recognition_is_recorded(bundle: Bundle) -> None:
    """From the frame on at which it is recorded, crops, landmarker and embedder are one call, of each number of faces,
    and tell what they tell plainly: of frames that change, whoever is looked at, for trackers and frame by frame, in a
    gallery that changes, and however late the landmarker's stream works.
    """
    image = pair()
    with pytest.MonkeyPatch.context() as patch, opened(bundle) as gpu:
        frames = gpu.gpu_frames
        assert frames is not None
        faces = gpu.detect(image)
        known = gpu.embed(gpu.align(image, faces))
        seen_before = [replace(face, refined=True) for face in faces]
        shifted = np.ascontiguousarray(np.roll(image, 3, axis=1))
        frames_shown: list[Picture] = [image, shifted, as_nv12(image)]
        shown = [
            (picture, these, threshold)
            for picture in frames_shown
            for these in (faces, faces[:1], seen_before)
            for threshold in (None, 0.4)
        ]
        with GpuGallery(frames.device, 512, most_bytes=1 << 20) as gallery:
            frames.search_in(gallery)
            snapshots = [crowd(40 + 10 * number, 512, known[:1]) for number in range(2)]
            patch.setattr(gpu_frames, "PLAIN_RUNS", 1000)
            wanted = []
            for snapshot in snapshots:
                gallery.hold(snapshot)
                wanted.append([recognised(gpu, *each) for each in shown])
            assert any(not np.array_equal(a[0], b[0]) for a, b in zip(wanted[0], wanted[0][6:], strict=False))
            assert frames.describe() == {"graphs": "0"}
            frames._recognitions.close()
            patch.setattr(gpu_frames, "PLAIN_RUNS", 2)
            allocations = driver.emulated_allocations()
            for round_ in range(6):
                gallery.hold(snapshots[round_ % 2])
                before = driver.emulated_graph_launches()
                for each, plainly in zip(shown, wanted[round_ % 2], strict=True):
                    require_same(recognised(gpu, *each), plainly)
                # The two frames of BGR are alike, so that theirs are recorded a round before.
                assert driver.emulated_graph_launches() - before == (0, 12, 18)[min(round_, 2)]
            assert driver.emulated_allocations() == allocations
            assert frames.describe() == {"graphs": "12"}
            stream = ctypes.c_void_p(gpu._sessions[2].stream.handle)  # type: ignore[attr-defined]
            assert driver.emulated_late(stream, 1) == 0
            require_same(recognised(gpu, *shown[0]), wanted[1][0])
            driver.emulated_late(stream, 0)


def check_recognition_that_cannot_be_recorded(bundle: Bundle) -> None:
    """Where CUDA refuses it, it is queued plainly, answers are right and one line says why."""
    image = pair()
    with pytest.MonkeyPatch.context() as patch, opened(bundle) as gpu:
        patch.setattr(gpu_frames, "PLAIN_RUNS", 1)
        frames, faces = gpu.gpu_frames, gpu.detect(image)
        assert frames is not None
        wanted = recognised(gpu, image, faces, None)
        enqueue = TensorRtSession.enqueue

        def allocating(session: TensorRtSession, prepared: Any) -> None:
            session.device.alloc(1 << 10).free()
            enqueue(session, prepared)

        patch.setattr(TensorRtSession, "enqueue", allocating)
        graphs = driver.emulated_graph_launches()
        for _ in range(4):
            require_same(recognised(gpu, image, faces, None), wanted)
        assert driver.emulated_graph_launches() == graphs
        assert frames.describe()["without graph"].startswith("CUDA: cuMemAlloc failed")


def without_landmarker(bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle but for its landmarker."""
    there = folder / "without.bundle"
    shutil.copytree(bundle.path, there)
    kept = [variant for variant in bundle.manifest.variants if variant.role != "landmarker"]
    text = json.dumps(replace(bundle.manifest, variants=tuple(kept)).to_dict())
    (there / "bundle.json").write_text(text, encoding="utf-8")
    return Bundle.open(there)


def check_without_a_landmarker(bundle: Bundle) -> None:
    """Faces are cut by the detector's landmarks, and nothing is asked of a model that is not there."""
    image = pair()
    with tempfile.TemporaryDirectory() as name, opened(without_landmarker(bundle, Path(name))) as gpu:
        assert gpu.gpu_frames is not None
        assert not gpu.gpu_frames.places_landmarks
        faces = gpu.detect(image)
        up, down = driver.emulated_bytes_up(), driver.emulated_bytes_down()
        crops = gpu.align(image, faces)
        assert driver.emulated_bytes_up() - up == 2 * LANDMARKS
        assert driver.emulated_bytes_down() - down == crops.nbytes
        for crop, face in zip(crops, faces, strict=True):
            assert np.abs(crop.astype(int) - align(image, face.landmarks)).max() <= 1


def check_a_landmarker_that_cannot_look_there(bundle: Bundle) -> None:
    """One that takes pixels the kernels do not cut looks on the CPU, as before, and its faces go through the GPU."""
    image = pair()
    odd = replace(bundle.variants("landmarker")[0].contract, color="rgb")
    with pytest.MonkeyPatch.context() as patch:
        real = Bundle.landmarker

        def swapped(self: Bundle, *arguments: Any) -> Any:
            found = real(self, *arguments)
            return found and replace(found, contract=odd)

        patch.setattr(Bundle, "landmarker", swapped)
        with opened(bundle) as gpu, opened(bundle, "cpu", "onnxruntime") as cpu:
            assert gpu.gpu_frames is not None
            assert not gpu.gpu_frames.places_landmarks
            faces = gpu.detect(image)
            refined = cpu.refine(image, faces)
            assert all(face.refined for face in refined)
            for crop, face in zip(gpu.align(image, faces), refined, strict=True):
                assert np.abs(crop.astype(int) - align(image, face.landmarks)).max() <= 2
            seen = gpu.recognise(image, faces, None)
            assert len(seen.qualities) == 2
            np.testing.assert_allclose(seen.vectors, gpu.embed(gpu.align(image, faces)), atol=1e-6)


def check_a_damaged_landmarker(bundle: Bundle) -> None:
    """What gives no numbers is told, as on the CPU, before anybody is recognised by it; the next frame is as before."""
    image = pair()
    with opened(bundle) as gpu:
        faces = gpu.detect(image)
        wanted = gpu.align(image, faces)
        session = gpu._sessions[2]
        output = session.memory_of(session.outputs[0].name)  # type: ignore[attr-defined]

        def damaged(self: Kernels, offsets: int, *rest: Any) -> None:
            if offsets == output.address:
                ctypes.memset(offsets, 0xFF, 4)  # the emulated device's memory is the host's: NaN
            real(self, offsets, *rest)

        real = Kernels.place
        for work in (lambda: gpu.align(image, faces), lambda: gpu.recognise(image, faces, 0.4)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Kernels, "place", damaged)
                with pytest.raises(EngineError, match="the landmarker gave something else than finite numbers"):
                    work()
            assert np.array_equal(gpu.align(image, faces), wanted)


def check_a_wrong_kernel_is_caught(bundle: Bundle) -> None:
    """Kernels that do not draw as the CPU does are refused when the models are opened, and everything is given back."""
    before, events = driver.emulated_allocations(), driver.emulated_events()
    for name, spoil in (
        ("letterbox", lambda run: lambda self, picture, out, size, scaled, stream: run(
            self, picture, out, size, (scaled[0] - 8, scaled[1]), stream)),
        ("align", lambda run: lambda self, picture, points, faces, crops, stream: None),
        ("align, wide", lambda run: lambda self, *given: run(self, *given[:5])),
        ("letterbox of NV12", lambda run: lambda self, picture, *rest: run(
            self, picture if picture.chroma is None else replace(picture, chroma=picture.address), *rest)),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            kernel = name.split()[0].rstrip(",")
            patch.setattr(Kernels, kernel, spoil(getattr(Kernels, kernel)))
            said = {"align": "alignment", "align, wide": "a landmarker's view"}.get(name, name)
            with pytest.raises(EngineError, match=rf"^{said} on the GPU is \d+ grey levels from the CPU's; [^\n]+$"):
                opened(bundle)
    for spoil in (
        lambda run: lambda self, *given: None,
        lambda run: lambda self, offsets, done, *rest: run(self, offsets + 4, done, *rest),
        lambda run: lambda self, offsets, done, *rest: run(self, offsets, done - 4, *rest),  # never 0
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kernels, "place", spoil(Kernels.place))
            with pytest.raises(
                EngineError, match=r"^landmarks are placed [\d.]+ pixels from the CPU's on the GPU; [^\n]+$"
            ):
                opened(bundle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernels, "sharpness", lambda self, crops, faces, sums, stream: self._device.zero(
            SimpleNamespace(address=sums), 16 * faces, stream))  # fmt: skip
        with pytest.raises(EngineError, match=r"^sharpness on the GPU is 0.000, on the CPU [\d.]+; [^\n]+$"):
            opened(bundle)
    assert driver.emulated_allocations() == before
    assert driver.emulated_events() == events


def check_refusals(bundle: Bundle) -> None:
    """What was asked for and cannot be is an error; "auto" says why it is not."""
    with pytest.raises(EngineError, match="where TensorRT runs detector and embedder"):
        opened(bundle, "gpu", "onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCEDGE_KERNELS", str(HERE / "absent.fatbin"))
        with opened(bundle) as analyzer:
            assert analyzer.describe()["preprocess"].startswith("cpu: the CUDA kernels are not built")
        with pytest.raises(EngineError, match="the CUDA kernels are not there"):
            opened(bundle, "gpu")


def check_measured(bundle: Bundle) -> None:
    """The benchmark of a whole frame runs to its end, both ways, and finds the same faces."""
    assert frame_precisions(bundle) == ["fp32"]
    defaults = tensorrt.TensorRtEngine.defaults
    built = replace(defaults, profile=tensorrt.Profile(batch=(1, 5)))
    found = measure_frame(bundle, "fp32", (640, 360), 2, people=70, built=built)
    passports = [file.read_text(encoding="utf-8") for file in Path(os.environ["ARCEDGE_CACHE"]).glob("*.json")]
    assert sum(str(built.profile) in text for text in passports) == 3, "of detector, embedder and landmarker"
    assert tensorrt.TensorRtEngine.defaults is defaults
    assert (found["gallery"], found["match"], found["landmarker"]) == (70, "gpu", "landmarker-fp32")
    # The five are two people, one of whom is known; in a frame a name is given once.
    assert found["named"] == {"gpu": 2, "cpu": 2, "gpu_nv12": 2}
    assert "gpu_nv12" not in measure_frame(bundle, "fp32", (641, 360), 2, people=70)["named"], "of odd sides"
    assert found["faces"] == {"least": 5, "most": 5}
    assert {found[f"preprocess_{way}_ms"]["count"] for way in found["named"]} == {2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCEDGE_KERNELS", str(HERE / "absent.fatbin"))
        with pytest.raises(EngineError, match="kernels are not there"):
            measure_frame(bundle, "fp32", (640, 360), 2)


def check_photos(bundle: Bundle) -> None:
    """Photos give real crops to prove engines on; without a face, and without photos, one line says so."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with pytest.raises(InputError, match="no picture in this folder"):
            real_pictures(bundle, folder)
        (folder / "broken.png").write_bytes(b"no picture")
        with pytest.raises(InputError, match="none of its first 1 pictures can be read"):
            real_pictures(bundle, folder)
        cv2.imwrite(str(folder / "a.png"), np.full((90, 90, 3), 99, np.uint8))
        with pytest.raises(InputError, match="no face in its first 1 pictures"):
            real_pictures(bundle, folder)
        cv2.imwrite(str(folder / "b.png"), portrait())
        found = real_pictures(bundle, folder)
    assert found["embedder"].shape == (1, CROP_SIZE, CROP_SIZE, 3)
    assert found["detector"].shape == (2, 320, 320, 3)
    assert found["landmarker"].shape == (1, 96, 96, 3)
    for variant in bundle.manifest.variants:
        (probe,) = as_probes(bundle.load(variant), variant, found[variant.role]).values()
        assert probe.dtype == np.uint8
        assert len(probe) == len(found[variant.role])


def check_the_build_command(bundle: Bundle) -> None:
    """`edge bundle build` says of each engine how near it is to ONNX Runtime, and on what that was found."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCEDGE_CACHE", str(Path(name) / "cache"))
        cv2.imwrite(str(Path(name) / "a.png"), portrait())
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert edge(["bundle", "build", str(bundle.path), "--photos", name, "--precision", "fp32"]) == 0
        lines = said.getvalue().splitlines()
        assert [line.split()[0] for line in lines] == [variant.name for variant in bundle.manifest.variants]
        for line in lines:
            assert line.endswith("mean cosine 1.00000, worst 1.00000 to ONNX Runtime over 1 real pictures")
        assert len(list((Path(name) / "cache").glob("fp32-*.plan"))) == len(lines)
        assert edge(["bundle", "build", str(bundle.path), "--precision", "int8"]) == 2


def check_the_landmarker_is_built_with_its_detector(bundle: Bundle) -> None:
    """In a precision it is not in, as INT8, the one that a camera would open goes with the others."""
    with tempfile.TemporaryDirectory() as name:
        options = tensorrt.TensorRtOptions(cache=Path(name) / "cache", backend=sys.argv[1], quiet=True)
        for moved in ({"detector", "embedder"}, {"embedder"}):
            there = Path(name) / "-".join(sorted(moved))
            shutil.copytree(bundle.path, there)
            variants = tuple(
                replace(variant, precision="fp16" if variant.role in moved else "fp32")
                for variant in bundle.manifest.variants
            )
            (there / "bundle.json").write_text(
                json.dumps(replace(bundle.manifest, variants=variants).to_dict()), encoding="utf-8"
            )
            built = [variant.role for variant, _ in build_engines(Bundle.open(there), "fp16", None, options)]
            wanted = {*moved, "landmarker"} if "detector" in moved else moved
            assert sorted(built) == sorted(wanted)


def write_pairs(folder: Path) -> Path:
    """Six pictures of two people and one of nobody, with pairs in LFW's format: two folds of two and two."""
    for person in portraits():
        for number, image in enumerate((person.image, person.image[:, ::-1], person.image // 2 + 40), start=1):
            (folder / person.name).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / person.name / f"{person.name}_{number:04d}.png"), image)
    (folder / "nobody").mkdir()
    cv2.imwrite(str(folder / "nobody" / "nobody_0001.jpg"), np.full((80, 80, 3), 90, np.uint8))
    one, two = (person.name for person in portraits())
    lines = ["2 2", f"{one} 1 2", f"{two} 1 3", f"{one} 1 {two} 1", f"{one} 2 nobody 1"]
    lines += [f"{two} 1 2", f"{one} 2 3", f"{one} 3 {two} 2", f"{two} 3 {one} 1"]
    pairs = folder / "pairs.txt"
    pairs.write_text("\n".join(lines) + "\n", encoding="ascii")
    return pairs


def check_accuracy(bundle: Bundle) -> None:
    """Pairs of two people through the engine: all told apart; a picture without a face is counted, not guessed."""
    with tempfile.TemporaryDirectory() as name:
        pairs = write_pairs(Path(name))
        crops = aligned_crops(bundle, pairs, pairs.parent)
        assert len(crops) == 6
        (variant,) = bundle.variants("embedder")
        ready = tensorrt.TensorRtEngine().load(bundle.load(variant))
        found = measure_accuracy(crops, ready, variant, pairs)
        assert (found["pairs"], found["without_a_face"]) == (7, 1)
        assert found["accuracy"]["value"] == 1.0
        values = list(crops.values())
        mixed = dict(zip(crops, [*values[1:], values[0]], strict=True))
        assert measure_accuracy(mixed, ready, variant, pairs)["accuracy"]["value"] < 1.0
        with pytest.raises(InputError, match="no pair of it shows two faces"):
            measure_accuracy({}, ready, variant, pairs)


def check_the_whole_command(bundle: Bundle) -> None:
    """Of a bundle with both models, photos and pairs everything is measured but what the machine has no means for."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "SIDE", 320)  # a quarter of the pixels: the stand-in has no GPU either
        patch.setenv("PATH", "")  # a sanitizer of the machine has nothing to look at in the emulator
        folder = Path(name)
        pairs, out = write_pairs(folder), folder / "out.json"
        command = ["--bundle", bundle.path, "--photos", folder, "--pairs", pairs, "--images", folder, "--out", out]
        command += [
            "--rounds",
            4,
            "--rows",
            64,
            "--people",
            50,
            "--frame",
            "640x360",
            "--batches",
            "1,2",
            "--frames",
            "1,2",
        ]
        command += ["--copy-bytes", 4096, "--energy-seconds", 0.01]
        assert measure([str(part) for part in command]) == 0
        found = json.loads(out.read_text(encoding="utf-8"))
        (entries,) = found["bundles"].values()
        assert set(entries["engines"]) == {variant.name for variant in bundle.manifest.variants}
        for engine in entries["engines"].values():
            assert "batches" in engine, engine
            assert set(engine["batches"]) == {"1", "2"}
            assert engine["parity"]["on"] == "real pictures"
        assert {name for name, engine in entries["engines"].items() if "best" in engine} == {
            "embedder-fp32",
            "landmarker-fp32",
        }
        (accuracy,) = entries["accuracy"].values()
        assert accuracy["accuracy"]["value"] == 1.0
        assert entries["frames"]["fp32"]["faces"] == {"least": 5, "most": 5}
        assert "not_measured" not in json.dumps({**found, "sanitizer": None})
        # Other photos, or another picture of a pair, are not what the file holds figures of.
        photo = find_pictures([folder])[0]
        spare = photo.read_bytes()
        photo.write_bytes(spare + b" ")
        assert measure([str(part) for part in command]) == 2
        photo.write_bytes(spare)
        # A list without its pictures is a mistake, and nothing is measured for it.
        place = command.index("--images")
        assert measure([str(part) for part in command[:place] + command[place + 2 :]]) == 2


def check_threads(bundle: Bundle) -> None:
    """Opened here and run by a worker, as the pipeline does it."""
    image, found = portrait(), []
    with opened(bundle) as gpu:

        def work() -> None:
            for _ in range(3):
                found.append(gpu.embed(gpu.align(image, gpu.detect(image))))

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    assert len(found) == 3
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


CHECKS: dict[str, Callable[[Bundle], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}

if __name__ == "__main__":
    _, backend, version, folder, shipped, *checks = sys.argv
    sys.modules["tensorrt"] = fake_tensorrt.make(version)
    os.environ["ARCEDGE_CACHE"] = folder
    kernels = Path(folder) / "emulated.fatbin"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    kernels.write_bytes(b"the emulated driver has them built in")
    os.environ["ARCEDGE_KERNELS"] = str(kernels)
    # The registry opens engines with their defaults: the backend is chosen where these are made.
    tensorrt.TensorRtEngine.defaults = tensorrt.TensorRtOptions(backend=backend, quiet=True)
    models = Bundle.open(Path(shipped))
    for check in checks or CHECKS:
        CHECKS[check](models)
        print(check, "holds")
