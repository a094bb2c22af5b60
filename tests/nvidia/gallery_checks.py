"""A gallery on the GPU: `python gallery_checks.py BACKEND VERSION FOLDER BUNDLE [CHECK …]`, as frame_checks.py.

The kernels are the real ones, in the emulator; the CPU's search says what has to come out.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import fake_tensorrt  # noqa: E402
from frame_checks import LANDMARKS, ROUGH, opened, pair, portrait  # noqa: E402

from benchmarks.demo.video import portraits  # noqa: E402
from benchmarks.gpu.frame import as_nv12  # noqa: E402
from edge import gpu_gallery  # noqa: E402
from edge.analyze import FaceAnalyzer  # noqa: E402
from edge.bundle import Bundle  # noqa: E402
from edge.cli import run as edge_run  # noqa: E402
from edge.cli.main import main as edge  # noqa: E402
from edge.cuda import open_device  # noqa: E402
from edge.cuda.kernels import TOP  # noqa: E402
from edge.engines import tensorrt  # noqa: E402
from edge.errors import EngineError  # noqa: E402
from edge.gallery import Binding, Gallery, Loose, Snapshot  # noqa: E402
from edge.gpu_gallery import GpuGallery  # noqa: E402
from edge.matching import match, nearest  # noqa: E402
from edge.quality import measure  # noqa: E402
from edge.shortlist import Shortlist  # noqa: E402
from edge.sources import capture  # noqa: E402
from edge.sources.live import LiveSource  # noqa: E402
from edge.types import Floats, Frame  # noqa: E402
from tests.support.lists import crowded, search, unit  # noqa: E402

driver = ctypes.CDLL("libcuda.so.1")
BACKEND = sys.argv[1]
LIST = 2 * 4 * TOP
"""Bytes of what is found for a face."""


def plain(rows: int, dimensions: int = 64, seed: int = 0, generation: int = 1) -> Snapshot:
    """Everybody with three vectors."""
    vectors = unit(np.random.default_rng(seed).normal(size=(rows, dimensions)))
    starts = np.arange(0, rows, 3, dtype=np.intp)
    return Snapshot(tuple(f"p{i}" for i in range(len(starts))), vectors, starts, generation)


def later(snapshot: Snapshot, **changes: Any) -> Snapshot:
    """The same file of vectors, at another moment."""
    return replace(snapshot, generation=snapshot.generation + 1, **changes)


def ups(work: Callable[[], object]) -> int:
    """Bytes that go up meanwhile."""
    before = driver.emulated_bytes_up()
    work()
    return int(driver.emulated_bytes_up() - before)


def check_the_kernel_answers_as_the_tests_stand_in_does(_: Bundle) -> None:
    """Negatives, late vectors, twins, identities in crowds: the lists are those the CPU's tests go by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_gallery, "WORTH_A_TRIP", 1)
        with GpuGallery(open_device(backend=BACKEND), 4) as there:
            for seed in range(40):
                snapshot, probes = crowded(seed, twins=seed % 2 == 1)
                given = there.hold(snapshot)
                assert given.finder is not None
                found, wanted = given.finder.find(probes), search(snapshot, probes)
                assert found is not None
                np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
                for i in range(len(probes)):
                    assert sorted(found.groups[i].tolist()) == sorted(wanted.groups[i].tolist()), "but for level ones"
                    mine, theirs = found.best(i), wanted.best(i)
                    assert (mine and mine[0]) == (theirs and theirs[0])
                assert [m.nearest for m in match(given, probes, 0.3)] == [
                    m.nearest for m in match(snapshot, probes, 0.3)
                ]


def check_only_what_changed_goes_up(_: Bundle) -> None:
    """The vectors once; who came since, each time; nothing where nothing changed; everything of another file."""
    row = 4 * 64 + 4
    base = plain(300)
    with GpuGallery(open_device(backend=BACKEND), 64) as there:
        assert ups(lambda: there.hold(base)) == 300 * row
        assert ups(lambda: there.hold(base)) == 0
        late = Loose(unit(np.random.default_rng(1).normal(size=(5, 64))), np.full(5, 100, np.intp))
        names = (*base.names, "new")
        now = later(base, names=names, late=late)
        allocations = driver.emulated_allocations()
        assert ups(lambda: there.hold(now)) == 5 * row
        assert driver.emulated_allocations() == allocations
        probe = late.vectors[2:3]
        lane = there.lane(there._stream, 8)
        assert names[best(there, lane, probe)] == "new"
        no = later(now, negatives=Loose(probe, np.array([100], np.intp)))
        assert ups(lambda: there.hold(no)) == 6 * row
        assert sorted(listed(there, lane, probe).groups[0, :2].tolist()) == [200, 201], "the photo, and the negative"
        gone = later(no, late=None, negatives=None, names=base.names)
        assert ups(lambda: there.hold(gone)) == 0
        assert best(there, lane, probe) == nearest(gone, probe).places[0]
        other = plain(300 + 1000, seed=2, generation=9)
        assert ups(lambda: there.hold(other)) == 1300 * row
        assert best(there, lane, other.vectors[1299:]) == 433
        more = later(plain(1400, seed=3, generation=10))
        assert ups(lambda: there.hold(more)) == 1400 * row, "more than there was room for"
        assert best(there, lane, more.vectors[1399:]) == 466


def best(there: GpuGallery, lane: gpu_gallery.SearchLane, probe: Floats) -> int:
    """Place of the nearest."""
    found = listed(there, lane, probe).best(0)
    assert found is not None
    assert abs(found[1]) <= 1.00001
    return found[0]


def listed(there: GpuGallery, lane: gpu_gallery.SearchLane, probe: Floats) -> Shortlist:
    """By a search as a frame makes it."""
    device = there._device
    pinned, memory = device.alloc_pinned(probe.nbytes), device.alloc(probe.nbytes)
    pinned.array[:] = (2.5 * probe).view(np.uint8).reshape(-1)  # it is brought to unit length there
    device.copy_in(memory, pinned, probe.nbytes, lane.stream)
    assert there.queue(lane, memory.address, len(probe)) is not None
    lane.stream.synchronize()
    pinned.free()
    memory.free()
    return lane.shortlist(len(probe))


def check_what_does_not_fit_is_matched_on_the_cpu(_: Bundle) -> None:
    """Said in one line, once; and again when it fits. The memory is given back meanwhile."""
    row = 4 * 64 + 4
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("edge.gpu_gallery").addHandler(handler)
    small, large = plain(3000), plain(3001, generation=2)
    before = driver.emulated_allocations()
    with GpuGallery(open_device(backend=BACKEND), 64, 3000 * row) as there:
        empty = driver.emulated_allocations()
        assert there.hold(small).finder is not None
        assert there.describe() == {"match": "gpu"}
        assert driver.emulated_allocations() == empty + 2
        assert there.hold(large) is large
        assert there.hold(later(large)).finder is None
        assert driver.emulated_allocations() == empty
        assert there.queue(there._own, 0, 1) is None
        assert there.describe() == {"match": f"cpu: {there.why_not}"}
        assert there.hold(small).finder is not None
    lines = ["matching on the CPU: 3,001 vectors take 1 MB of the GPU's memory, and 1 may be used"]
    assert said == [*lines, "matching on the GPU again"]
    with GpuGallery(open_device(backend=BACKEND), 520) as wide:
        assert wide.hold(plain(3000, 520)).finder is None
        assert wide.why_not == "embeddings have 520 numbers, and the kernels take 512"
    with GpuGallery(open_device(backend=BACKEND), 64) as broken, pytest.MonkeyPatch.context() as patch:
        patch.setattr(broken._device, "alloc", refuse)
        assert broken.hold(small).finder is None
        assert broken.why_not == "CUDA: out of memory"
        patch.undo()
        assert broken.hold(later(small)).finder is not None
    with GpuGallery(open_device(backend=BACKEND), 64) as nobody:
        none = Snapshot((), np.zeros((0, 64), np.float32), np.zeros(0, np.intp), 1)
        assert nobody.hold(none) is none
        assert nobody.queue(nobody._own, 0, 1) is None
        assert nobody.why_not == "", "there is nothing to match, wherever"
    assert driver.emulated_allocations() == before


def refuse(size: int) -> None:
    raise EngineError("CUDA: out of memory")


def check_another_moment_s_finder_says_nothing(_: Bundle) -> None:
    """A snapshot that somebody kept is searched by the CPU once another is up."""
    before, after = plain(120), plain(120, seed=5, generation=2)
    with pytest.MonkeyPatch.context() as patch, GpuGallery(open_device(backend=BACKEND), 64) as there:
        patch.setattr(gpu_gallery, "WORTH_A_TRIP", 120)
        assert there.hold(plain(119)).finder is None, "not worth the trip"
        kept = there.hold(before)
        probes = np.concatenate([before.vectors[7:8] * np.float32(0.5), after.vectors[40:110]])
        assert kept.finder is not None
        found = kept.finder.find(probes[:1])
        assert found is not None
        assert found.best(0) == (2, pytest.approx(0.5)), "evidence is not brought to unit length"
        now = there.hold(after)
        assert kept.finder.find(probes) is None
        assert now.finder is not None
        many = now.finder.find(probes)
        assert many is not None
        assert len(many) == 71, "more than one search takes"
        np.testing.assert_array_equal(nearest(now, probes).places, nearest(after, probes).places)
        np.testing.assert_array_equal(nearest(kept, probes).places, nearest(before, probes).places)


def gallery_of(bundle: Bundle, folder: Path) -> Gallery:
    """Eileen Collins, and a great many people nobody ever sees; somebody else is not her."""
    with opened(bundle, "cpu", "onnxruntime") as analyzer:
        made = Gallery.create(folder / "people", Binding.of(analyzer.embedder_variant))
        random = np.random.default_rng(0)
        for person in portraits():
            vector = analyzer.embed(analyzer.align(person.image, analyzer.detect(person.image)[:1]))
            if person.name == "eileen_collins":
                made.add(person.name, vector, ["portrait"])
        crowd = unit(random.normal(size=(50, analyzer.embedder.embedding_size)))
        for i, row in enumerate(crowd):
            made.add(f"nobody {i}", row[None], ["made up"])
        made.reject("eileen_collins", vector, ["grace_hopper"])
    return made


@contextmanager
def watched(bundle: Bundle) -> Iterator[tuple[FaceAnalyzer, GpuGallery, Gallery]]:
    """An analyzer that looks in a gallery, as `edge run` opens them."""
    with tempfile.TemporaryDirectory() as name, gallery_of(bundle, Path(name)) as gallery, opened(bundle) as analyzer:
        frames = analyzer.gpu_frames
        assert frames is not None
        with GpuGallery(frames.device, analyzer.embedder.embedding_size) as there:
            frames.search_in(there)
            there.hold(gallery.snapshot())
            yield analyzer, there, gallery


def check_identities_come_down(bundle: Bundle) -> None:
    """Frame by frame only the lists do; a tracker gets embeddings and sharpness besides; nothing is allocated."""
    image = pair()
    with watched(bundle) as (analyzer, _, gallery):
        threshold = 0.4
        for _ in range(3):
            faces = analyzer.detect(image)
            analyzer.recognise(image, faces, threshold)
        assert len(faces) == 2
        allocations = driver.emulated_allocations()
        up, down = driver.emulated_bytes_up(), driver.emulated_bytes_down()
        found = analyzer.recognise(image, faces, threshold)
        assert driver.emulated_bytes_up() - up == 2 * ROUGH, "landmarks"
        assert driver.emulated_bytes_down() - down == 2 * (LIST + LANDMARKS)
        assert (found.vectors, found.qualities) == (None, [])
        assert found.sought is not None
        (places, scores) = found.sought.shortlist.settled(threshold) or ([], [])
        names = [found.sought.snapshot.names[place] for place in places]
        down = driver.emulated_bytes_down()
        tracked = analyzer.recognise(image, faces, None)
        size = analyzer.embedder.embedding_size
        assert driver.emulated_bytes_down() - down == 2 * (LIST + LANDMARKS + 2 * 8 + 4 * size)
        assert driver.emulated_allocations() == allocations
        assert tracked.vectors is not None
        crops = analyzer.align(image, faces)
        np.testing.assert_allclose(tracked.vectors, analyzer.embed(crops), atol=1e-6)
        for quality, face, crop in zip(tracked.qualities, faces, crops, strict=True):
            assert astuple(quality) == pytest.approx(astuple(measure(face, crop)), rel=1e-9)
        wanted = nearest(gallery.snapshot(), tracked.vectors)
        assert names == [gallery.snapshot().names[place] for place in wanted.places] == ["eileen_collins"] * 2
        np.testing.assert_allclose(scores, wanted.similarities, atol=1e-5)
        # The threshold where the answer lies, and a probe that nothing is like: the CPU has to decide, of embeddings.
        level = analyzer.recognise(image, faces, float(scores[0]))
        assert level.vectors is not None
        np.testing.assert_allclose(level.vectors, tracked.vectors, atol=1e-6)
        assert level.qualities == []


def check_a_crowd_and_a_large_frame(bundle: Bundle) -> None:
    """What the GPU does not take is recognised on the CPU, with embeddings and no lists."""
    image = portrait()
    with watched(bundle) as (analyzer, _, _):
        face = analyzer.detect(image)[:1]
        many = analyzer.recognise(image, face * 12, 0.4)
        assert many.sought is not None
        assert len(many.sought.shortlist) == 12, "more than one pass over the gallery serves"
        assert len({many.sought.shortlist.best(i) for i in range(12)}) == 1
        crowd = analyzer.recognise(image, face * 70, 0.4)
        assert crowd.sought is None
        assert crowd.vectors is not None
        assert len(crowd.vectors) == 70
        assert len(analyzer.recognise(image, face * 70, None).qualities) == 70
        analyzer.gpu_frames._gallery._let_go()  # type: ignore[union-attr]
        alone = analyzer.recognise(image, face, 0.4)
        assert alone.sought is None
        assert alone.vectors is not None
        # Pixels that the GPU cuts are up to a grey level from the CPU's.
        assert float(alone.vectors[0] @ crowd.vectors[0]) > 0.99999


def check_memory_returns(bundle: Bundle) -> None:
    before = driver.emulated_allocations()
    with watched(bundle):
        pass
    assert driver.emulated_allocations() == before


def check_a_gallery_changes_while_it_is_searched(bundle: Bundle) -> None:
    """One thread recognises, another brings galleries up: each list is of the snapshot it names."""
    image = portrait()
    with watched(bundle) as (analyzer, there, gallery):
        faces = analyzer.detect(image)
        base = gallery.snapshot()
        # In the first the person is at one place, in the second at another.
        turned = replace(base, names=base.names[::-1], vectors=base.vectors[::-1].copy(), negatives=None, generation=99)
        seen: set[int] = set()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                for turn in range(1000):
                    if turn >= 12 and len(seen) == 2:
                        break  # both were up while this thread had its turn, however seldom that is
                    sought = analyzer.recognise(image, faces, 0.4).sought
                    if sought is not None:
                        (places, _) = sought.shortlist.settled(0.4) or ([], [])
                        assert sought.snapshot.names[places[0]] == "eileen_collins"
                        seen.add(sought.snapshot.generation)
            except BaseException as error:
                failed.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        turn = 0
        while worker.is_alive():
            turn += 1
            there.hold((base, turned)[turn % 2])
            time.sleep(0.001 * (turn % 4))
        worker.join()
        assert not failed, failed
        assert seen == {base.generation, 99}


def check_the_whole_run(bundle: Bundle) -> None:
    """`edge run` tells the same of pictures, and of a video it tracks people in, wherever the gallery lies."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        gallery_of(bundle, folder).close()
        patch.setattr(gpu_gallery, "WORTH_A_TRIP", 1)  # evidence of tracks as well
        pictures = folder / "pictures"
        pictures.mkdir()
        cv2.imwrite(str(pictures / "a.png"), pair())
        cv2.imwrite(str(pictures / "b.png"), portraits()[1].image)
        cv2.imwrite(str(pictures / "c.png"), np.full((120, 120, 3), 80, np.uint8))
        writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (740, 400))
        for i in range(7):
            writer.write(np.roll(pair(), 4 * i, axis=1))
        writer.release()
        for source in (pictures, folder / "v.avi"):
            here, there = (told(bundle, folder, source, on_gpu) for on_gpu in (False, True))
            assert there == here
            assert len(here) == {"pictures": 3, "v.avi": 14}[source.name]
            assert {entry["identity"] for entry in here} >= {"eileen_collins"}
        there = told(bundle, folder, pictures, True, "--workers", "2")
        assert {entry["identity"] for entry in there} == {"eileen_collins", None}
        assert there == told(bundle, folder, pictures, False)


class Csi:
    """Stands for cv2.VideoCapture on a Jetson: seven frames, as the pipeline's end says, each once it is waited for."""

    wanted = threading.Event()
    under_way = False
    """Whether a frame is being read, or was and nobody has polled it: another one would take its place."""

    def __init__(self, pipeline: str, *_: Any) -> None:
        self.nv12 = "format=NV12 ! appsink" in pipeline
        self.left = 7

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        if self.left < 0:
            raise capture.EndOfStream
        self.wanted.wait()
        Csi.under_way = True
        self.wanted.clear()
        frame = as_nv12(np.roll(pair(), 4 * self.left, axis=1))
        return True, frame.planes if self.nv12 else frame.bgr

    def release(self) -> None:
        return


def check_a_camera_of_nv12(bundle: Bundle) -> None:
    """`edge run` asks a CSI camera for NV12 where frames go through the GPU, and for BGR else; it tells the same."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        gallery_of(bundle, folder).close()
        asked: list[bool] = []

        def camera(*what: Any) -> Csi:
            asked.append((opened_one := Csi(*what)).nv12)
            return opened_one

        def poll(source: LiveSource) -> Frame | None:
            if (frame := plain(source)) is not None:
                Csi.under_way = False
            elif not Csi.under_way:
                Csi.wanted.set()  # whoever polls has finished with the frame before
            return frame

        plain = LiveSource.poll
        patch.setattr(LiveSource, "poll", poll)
        patch.setattr(capture, "has_gstreamer", lambda: True)
        patch.setattr(capture.cv2, "VideoCapture", camera)
        found = told(bundle, folder, "csi://0", True)
        patch.setenv("ARCEDGE_KERNELS", str(HERE / "absent.fatbin"))
        wanted = told(bundle, folder, "csi://0", False)
        assert asked == [True, False]
        assert len(found) == len(wanted) == 14
        assert [entry["identity"] for entry in found] == [entry["identity"] for entry in wanted]
        assert "eileen_collins" in {entry["identity"] for entry in found}
        for entry in (*found, *wanted):
            assert entry["source"] == "csi://0"


def told(bundle: Bundle, folder: Path, source: Path | str, on_gpu: bool, *more: str) -> list[dict[str, Any]]:
    """The events of a run, without what time it took."""
    events, summary = folder / "events.jsonl", folder / "summary.json"
    events.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch, summary.open("w") as out:
        if not on_gpu:
            patch.setattr(edge_run, "_gallery_on_gpu", nowhere)
        patch.setattr(sys, "stdout", out)
        command = ["run", "--bundle", bundle.path, "--gallery", folder / "people", "--engine", "tensorrt"]
        command += ["--source", source, "--events", events, "--json-summary", "--threshold", 0.3, *more]
        assert edge([str(part) for part in command]) == 0
    figures = json.loads(summary.read_text())
    assert figures["models"].get("match") == ("gpu" if on_gpu else None)
    assert ("recognise" in figures["stages_ms"]) == on_gpu
    entries = [json.loads(line) for line in events.read_text().splitlines()]
    faces = [entry for entry in entries if "identity" in entry]
    for entry in faces:
        entry.pop("latency_ms", None)
    return faces


@contextmanager
def nowhere(*_: Any) -> Iterator[None]:
    yield None


CHECKS: dict[str, Callable[[Bundle], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}

if __name__ == "__main__":
    _, BACKEND, version, home, shipped, *checks = sys.argv
    sys.modules["tensorrt"] = fake_tensorrt.make(version)
    os.environ["ARCEDGE_CACHE"] = home
    kernels = Path(home) / "emulated.fatbin"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    kernels.write_bytes(b"the emulated driver has them built in")
    os.environ["ARCEDGE_KERNELS"] = str(kernels)
    tensorrt.TensorRtEngine.defaults = tensorrt.TensorRtOptions(backend=BACKEND, quiet=True)
    models = Bundle.open(Path(shipped))
    for check in checks or CHECKS:
        CHECKS[check](models)
        print(check, "holds")
