"""The runtime on real photographs and videos with reference models: what the toy world cannot show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.bundle import Bundle
from edge.contract import ModelContract
from edge.enrolment import EnrolmentOptions, enrol, find_people, look
from edge.gallery import Binding, Gallery
from edge.manifest import Manifest, Threshold, Variant
from edge.pictures import read_picture
from edge.pipeline import Pipeline
from edge.sources import open_source
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import FrameResult

pytestmark = pytest.mark.realdata

THRESHOLD = 0.41
"""At a FAR of 0.001 as fitted for this embedder on identities that none of these pictures shows."""

MODELS = {
    "detector": ("yunet_s_dynamic.onnx", ModelContract("detector", None, layout="nchw", dtype="float32")),
    "embedder": (
        "mobilefacenet_foamliu_128.onnx",
        ModelContract(
            "embedder",
            (112, 112),
            color="rgb",
            layout="nchw",
            dtype="float32",
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            template="arcface-112",
            embedding_size=128,
        ),
    ),
}


class Kept:
    def __init__(self) -> None:
        self.results: list[FrameResult] = []

    def write(self, result: FrameResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        return


@pytest.fixture(scope="module")
def analyzer(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaceAnalyzer]:
    folder = tmp_path_factory.mktemp("reference.bundle")
    variants = []
    for role, (name, contract) in MODELS.items():
        data = (shared_data / "models" / name).read_bytes()
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        threshold = Threshold(THRESHOLD, 1e-3, 0, "reference") if role == "embedder" else None
        variants.append(Variant(role, role, "fp32", "onnx", name, digest, len(data), contract, threshold))
    (folder / "bundle.json").write_text(json.dumps(Manifest(tuple(variants)).to_dict()))
    cv2.setNumThreads(1)
    with FaceAnalyzer(Bundle.open(folder)) as opened:
        yield opened


def enrolled(analyzer: FaceAnalyzer, home: Path, folder: Path, most: int | None = None) -> Gallery:
    gallery = Gallery.create(home, Binding.of(analyzer.embedder_variant))
    for person in find_people(folder):
        few = type(person)(person.name, person.pictures[:most])
        report = enrol(analyzer, gallery, few, EnrolmentOptions(threshold=THRESHOLD))
        assert report.added == len(few.pictures), report.notices
    return gallery


def test_six_faces_are_six_and_none_is_none(analyzer: FaceAnalyzer, shared_data: Path) -> None:
    scenes = shared_data / "data" / "scenes"
    assert len(analyzer.detect(read_picture(scenes / "six_faces.jpg"))) == 6
    empty = read_picture(scenes / "no_face.png")
    assert analyzer.detect(empty) == []
    assert analyzer.main_face(empty) is None


def test_a_face_is_found_in_every_tight_crop(analyzer: FaceAnalyzer, shared_data: Path) -> None:
    crops = sorted((shared_data / "data" / "avengers" / "cropped_images").glob("*/*.png"))[::9]
    assert len(crops) >= 30
    missed = [path.name for path in crops if analyzer.main_face(read_picture(path)) is None]
    assert missed == []


def test_the_avengers_are_named_in_whole_photographs_and_strangers_are_not(
    analyzer: FaceAnalyzer, shared_data: Path, tmp_path: Path
) -> None:
    data = shared_data / "data"
    gallery = enrolled(analyzer, tmp_path / "g", data / "avengers" / "cropped_images", most=12)
    kept = Kept()
    with open_source(str(data / "scenes" / "avengers")) as source:
        Pipeline([analyzer], gallery.snapshot, THRESHOLD, [kept]).run(source)
    named = {
        Path(str(result.frame.picture)).stem: {d.match.identity for d in result.decisions} - {None}
        for result in kept.results
    }
    alone = {"ce": "chris_evans", "ch": "chris_hemsworth", "mr": "mark_ruffalo"}
    alone |= {"rdj": "robert_downey_jr", "sj": "scarlett_johansson"}
    for photo, name in alone.items():
        assert named[photo] == {name}
    for photo in ("avengers1", "avengers2"):
        assert len(named[photo]) >= 3
    strangers = Kept()
    with open_source(str(data / "scenes" / "six_faces.jpg")) as source:
        Pipeline([analyzer], gallery.snapshot, THRESHOLD, [strangers]).run(source)
    assert [d.match.identity for d in strangers.results[0].decisions] == [None] * 6


@pytest.mark.slow
def test_the_singer_is_named_once_and_for_all_and_the_audience_never(
    analyzer: FaceAnalyzer, shared_data: Path, tmp_path: Path
) -> None:
    data = shared_data / "data"
    gallery = enrolled(analyzer, tmp_path / "g", data / "gallery_hamilton")
    kept = Kept()
    with open_source(str(data / "video" / "hamilton_360p.mp4")) as source:
        tracker = Tracker(TrackerOptions(EvidenceOptions(THRESHOLD)))
        Pipeline([analyzer], gallery.snapshot, THRESHOLD, [kept], tracker).run(source)
    singer: list[str | None] = []
    for result in kept.results:
        names = [d.match.identity for d in result.decisions]
        # The singer stands alone on the stage from frame 82 to 210; before and after the camera shows the audience.
        if 82 <= result.frame.index <= 210:
            largest = max(result.decisions, key=lambda d: d.face.width, default=None)
            singer.append(None if largest is None else largest.match.identity)
        elif result.frame.index >= 22:
            assert set(names) <= {None}
    changes = [b for a, b in pairwise(singer) if a != b]
    assert changes == ["lin-manuel-miranda"]
    assert singer.count("lin-manuel-miranda") >= 110


def test_a_blurred_picture_is_told_from_a_sharp_one(analyzer: FaceAnalyzer, shared_data: Path) -> None:
    photo = read_picture(shared_data / "data" / "scenes" / "avengers" / "ce.jpg")
    sharp = look(analyzer, photo, "sharp")
    blurred = look(analyzer, np.asarray(cv2.GaussianBlur(photo, (0, 0), 6)), "blurred")
    assert sharp.quality.good  # type: ignore[union-attr]
    assert not blurred.quality.good  # type: ignore[union-attr]
