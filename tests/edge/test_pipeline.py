from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import pipeline
from edge.analyze import FaceAnalyzer
from edge.errors import InputError
from edge.gallery import Binding, Gallery
from edge.sources import open_source
from edge.types import FrameResult


class Kept:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.results: list[FrameResult] = []
        self.closed = 0

    def write(self, result: FrameResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def gallery(toy: Any, tmp_path: Path) -> Gallery:
    """Persons 1 and 2 are known."""
    with FaceAnalyzer(toy.bundle) as analyzer:
        made = Gallery.create(tmp_path / "g", Binding.of(analyzer.embedder_variant))
        for person in (1, 2):
            image = toy.scene(160, 160, [(person, 48, 48)])
            made.add(f"p{person}", analyzer.embed(analyzer.align(image, analyzer.detect(image))), ["portrait"])
    return made


@pytest.fixture
def video(toy: Any, tmp_path: Path) -> Path:
    """30 frames: 1 walks right, 2 comes at frame 10, a stranger, 3, at frame 20."""
    frames = []
    for i in range(30):
        people = [(1, 10 + 3 * i, 20)]
        people += [(2, 300 - 2 * i, 150)] if i >= 10 else []
        people += [(3, 150, 90)] if i >= 20 else []
        frames.append(toy.scene(400, 240, people))
    return toy.write_video(tmp_path / "walk.mp4", frames)


def test_everybody_is_named_where_they_are_and_the_stranger_is_unknown(toy: Any, gallery: Gallery, video: Path) -> None:
    kept = Kept()
    with FaceAnalyzer(toy.bundle) as analyzer, open_source(str(video)) as source:
        summary = pipeline.run(source, analyzer, gallery.snapshot, toy.threshold, [kept])
    assert [result.frame.index for result in kept.results] == list(range(30))
    for i, result in enumerate(kept.results):
        named = {decision.match.identity: decision.face.box for decision in result.decisions}
        assert len(result.decisions) == 1 + (i >= 10) + (i >= 20)
        np.testing.assert_allclose(named["p1"][:2], [10 + 3 * i, 20], atol=9)
        if i >= 10:
            np.testing.assert_allclose(named["p2"][:2], [300 - 2 * i, 150], atol=9)
        if i >= 20:
            np.testing.assert_allclose(named[None][:2], [150, 90], atol=9)
    assert kept.closed == 1
    assert {name: seen.frames for name, seen in summary.people.items()} == {"p1": 30, "p2": 20}
    assert (summary.frames, summary.faces, summary.unknown) == (30, 60, 10)
    for stage in ("detect", "align", "embed", "match"):
        assert summary.stages[stage].count == 30
        assert kept.results[-1].decisions[0].latency_ms[stage] > 0


def test_who_is_enrolled_during_a_run_is_known_from_the_next_frame(toy: Any, gallery: Gallery, video: Path) -> None:
    class EnrolsAtFrame25(Kept):
        def write(self, result: FrameResult) -> None:
            super().write(result)
            if result.frame.index == 25:
                with Gallery.open(gallery.path) as other, FaceAnalyzer(toy.bundle) as analyzer:
                    image = toy.scene(160, 160, [(3, 40, 40)])
                    other.add("p3", analyzer.embed(analyzer.align(image, analyzer.detect(image))), ["now"])

    kept = EnrolsAtFrame25()
    with FaceAnalyzer(toy.bundle) as analyzer, open_source(str(video)) as source:
        pipeline.run(source, analyzer, gallery.snapshot, toy.threshold, [kept])
    named = [{decision.match.identity for decision in result.decisions} for result in kept.results]
    assert all("p3" not in names for names in named[:26])
    assert all("p3" in names for names in named[26:])


def test_a_run_ends_at_its_limit_or_when_it_is_stopped(toy: Any, gallery: Gallery, video: Path) -> None:
    with FaceAnalyzer(toy.bundle) as analyzer:
        with open_source(str(video)) as source:
            assert pipeline.run(source, analyzer, gallery.snapshot, 0.5, max_frames=7).frames == 7
        with open_source(str(video)) as source:

            class Stops(Kept):
                def write(self, result: FrameResult) -> None:
                    super().write(result)
                    if result.frame.index == 4:
                        source.stop()

            kept = Stops()
            assert pipeline.run(source, analyzer, gallery.snapshot, 0.5, [kept]).frames == 5
            assert kept.closed == 1


def test_sinks_are_closed_when_one_of_them_fails(toy: Any, gallery: Gallery, video: Path) -> None:
    class Fails(Kept):
        def write(self, result: FrameResult) -> None:
            raise InputError("disk full")

    first, failing, last = Kept(), Fails(), Kept()
    with (
        FaceAnalyzer(toy.bundle) as analyzer,
        open_source(str(video)) as source,
        pytest.raises(InputError, match="disk full"),
    ):
        pipeline.run(source, analyzer, gallery.snapshot, 0.5, [first, failing, last])
    assert (first.closed, failing.closed, last.closed) == (1, 1, 1)
