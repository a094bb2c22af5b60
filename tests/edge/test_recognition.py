"""The pipeline with analyzers that look for faces in the gallery themselves: as one whose gallery is on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.gallery import Binding, Gallery, Snapshot
from edge.pipeline import Pipeline
from edge.quality import measure
from edge.recognition import Recognised, Sought
from edge.shortlist import ROUNDING, Shortlist
from edge.sources import open_source
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import Face, Floats, FrameResult, Image
from tests.support.lists import search


class Elsewhere:
    """Stands for the GPU's gallery: holds the snapshot read last, and rounds otherwise than the CPU."""

    def __init__(self, *, finds_tracks: bool = True) -> None:
        self.held: Snapshot | None = None
        self.random = np.random.default_rng(0)
        self._finds_tracks = finds_tracks
        self.found = 0

    def reader(self, read: Callable[[], Snapshot]) -> Callable[[], Snapshot]:
        def hold() -> Snapshot:
            snapshot = read()
            if self.held is None or self.held.generation != snapshot.generation:
                self.held = snapshot
            return replace(self.held, finder=self) if self._finds_tracks else self.held

        return hold

    def find(self, probes: Floats) -> Shortlist:
        assert self.held is not None
        self.found += 1
        return search(self.held, probes, lambda shape: self.random.uniform(-3e-6, 3e-6, shape).astype(np.float32))


class Recognises(FaceAnalyzer):
    """Brings down what the GPU would, and nothing else."""

    gallery: Elsewhere
    asked: list[tuple[float | None, bool]]

    def recognise(self, image: Image, faces: Sequence[Face], threshold: float | None) -> Recognised:
        crops = self.align(image, faces)
        vectors = self.embed(crops)
        assert self.gallery.held is not None
        sought = Sought(self.gallery.held, self.gallery.find(vectors))
        settled = threshold is not None and sought.shortlist.settled(threshold) is not None
        self.asked.append((threshold, settled))
        seen = zip(faces, crops, strict=True) if threshold is None else ()
        return Recognised(None if settled else vectors, [measure(face, crop) for face, crop in seen], sought)


class Kept:
    def __init__(self, then: Callable[[FrameResult], None] = lambda result: None) -> None:
        self.results: list[FrameResult] = []
        self._then = then

    def write(self, result: FrameResult) -> None:
        self.results.append(result)
        self._then(result)

    def close(self) -> None:
        return


@pytest.fixture
def gallery(toy: Any, tmp_path: Path) -> Gallery:
    """1 and 2 are known, 2 by two photos, one of them under another name as well; somebody else is not 1."""
    made = Gallery.create(tmp_path / "g", Binding.of(FaceAnalyzer(toy.bundle).embedder_variant))
    for name, person in (("p1", 1), ("p2", 2), ("twin", 2)):
        made.add(name, vector_of(toy, person), ["portrait"])
    made.reject("p1", vector_of(toy, 4), ["not them"])
    return made


def vector_of(toy: Any, person: int) -> Floats:
    with FaceAnalyzer(toy.bundle) as analyzer:
        image = toy.scene(160, 160, [(person, 48, 48)])
        return analyzer.embed(analyzer.align(image, analyzer.detect(image)))


@pytest.fixture
def video(toy: Any, tmp_path: Path) -> Path:
    """30 frames: 1 walks right, 2 comes at frame 10, a stranger, 3, at frame 20; for a while nobody is there."""
    frames = []
    for i in range(30):
        people = [(1, 10 + 3 * i, 20)]
        people += [(2, 300 - 2 * i, 150)] if i >= 10 else []
        people += [(3, 150, 90)] if i >= 20 else []
        frames.append(toy.scene(400, 240, people if i not in (15, 16) else []))
    return toy.write_video(tmp_path / "walk.mp4", frames)


def run(
    toy: Any,
    gallery: Gallery,
    video: Path,
    elsewhere: Elsewhere | None,
    *,
    tracked: bool,
    workers: int = 1,
    **more: Any,
) -> tuple[list[FrameResult], list[Any]]:
    kept = Kept(**more)
    asked: list[tuple[float | None, bool]] = []
    with ExitStack() as opened:
        kind = FaceAnalyzer if elsewhere is None else Recognises
        analyzers = [opened.enter_context(kind(toy.bundle)) for _ in range(workers)]
        for analyzer in analyzers:
            if isinstance(analyzer, Recognises) and elsewhere is not None:
                analyzer.gallery, analyzer.asked = elsewhere, asked
        source = opened.enter_context(open_source(str(video)))
        tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold))) if tracked else None
        read = gallery.snapshot if elsewhere is None else elsewhere.reader(gallery.snapshot)
        on_gpu = elsewhere is not None
        Pipeline(analyzers, read, toy.threshold, [kept], tracker, recognise=on_gpu).run(source)
    return kept.results, asked


def told(results: list[FrameResult]) -> list[Any]:
    """What is said of everybody."""
    return [
        [
            (
                result.frame.index,
                d.match.identity,
                d.match.nearest,
                d.look and (d.look.identity, d.look.nearest),
                d.track and (d.track.number, d.track.state, d.track.looks),
            )
            for d in result.decisions
        ]
        for result in results
    ]


def cosines(results: list[FrameResult]) -> list[float]:
    every = [d for result in results for d in result.decisions]
    return [d.match.similarity for d in every] + [d.look.similarity for d in every if d.look is not None]


@pytest.mark.parametrize("finds_tracks", [True, False])
@pytest.mark.parametrize(("tracked", "workers"), [(False, 1), (False, 2), (True, 1)])
def test_everything_is_told_as_the_cpu_tells_it(
    toy: Any, gallery: Gallery, video: Path, tracked: bool, finds_tracks: bool, workers: int
) -> None:
    wanted, _ = run(toy, gallery, video, None, tracked=tracked, workers=workers)
    elsewhere = Elsewhere(finds_tracks=finds_tracks)
    found, asked = run(toy, gallery, video, elsewhere, tracked=tracked, workers=workers)
    assert told(found) == told(wanted)
    # A tracker's are the CPU's own, of the vectors that decide.
    np.testing.assert_allclose(cosines(found), cosines(wanted), atol=3e-7 if tracked else ROUNDING)
    assert len(wanted) == 30
    names = {d.match.identity for result in found for d in result.decisions}
    assert {"p1", None} <= names
    assert names & {"p2", "twin"}, "who is enrolled under two names with one vector is called by either"
    assert {threshold for threshold, _ in asked} == {None if tracked else toy.threshold}
    if not tracked:
        settled = [how for _, how in asked]
        # Twins are level to the last digit, so that the CPU decides wherever 2 is in view.
        assert settled.count(True) == 10
        if workers == 1:  # two ask as they get round to it
            assert all(settled[:10])
    assert found[-1].latency_ms.keys() >= {"detect", "match"}
    assert any("recognise" in result.latency_ms for result in found)


def test_a_frame_that_nobody_is_in_is_not_recognised(toy: Any, gallery: Gallery, video: Path) -> None:
    found, asked = run(toy, gallery, video, Elsewhere(), tracked=False)
    assert [len(found[i].decisions) for i in (14, 15, 16, 17)] == [2, 0, 0, 2]
    assert len(asked) == 28


@pytest.mark.parametrize("tracked", [False, True])
def test_who_is_enrolled_during_a_run_is_known_from_the_next_frame(
    toy: Any, gallery: Gallery, video: Path, tracked: bool
) -> None:
    vector = vector_of(toy, 3)

    def enrol(result: FrameResult) -> None:
        if result.frame.index == 25:
            with Gallery.open(gallery.path) as other:
                other.add("p3", vector, ["now"])

    found, _ = run(toy, gallery, video, Elsewhere(), tracked=tracked, then=enrol)
    named = [{decision.match.identity for decision in result.decisions} for result in found]
    assert all("p3" not in names for names in named[:26])
    assert all("p3" in names for names in named[26 + tracked :])
