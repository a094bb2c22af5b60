"""A picture is a person's once, whichever engine looked at it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.cli.main import main
from edge.enrolment import EnrolmentOptions, Person, Shot, enrol, look, reject
from edge.gallery import Binding, Gallery, Key, MilvusPlace, Place
from edge.gallery.store import NewEntry, Outcome, Picture
from edge.pictures import read_picture
from edge.types import Floats, Image

OPTIONS = EnrolmentOptions(threshold=0.7)


class Elsewhere(FaceAnalyzer):
    """Another engine: its vectors are turned by some hundredths of a degree, as other roundings turn them."""

    def embed(self, crops: Image) -> Floats:
        vectors = super().embed(crops)
        turned = vectors + 1e-3 * np.roll(vectors, 1, axis=1)
        exact: Floats = (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)
        return exact


@pytest.fixture(scope="module")
def here(toy: Any) -> Iterator[FaceAnalyzer]:
    with FaceAnalyzer(toy.bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def elsewhere(toy: Any) -> Iterator[FaceAnalyzer]:
    with Elsewhere(toy.bundle) as opened:
        yield opened


@pytest.fixture(params=["plain", "encrypted", "milvus"])
def gallery(request: pytest.FixtureRequest, here: FaceAnalyzer, tmp_path: Path) -> Iterator[Gallery]:
    place: Place = tmp_path / "g"
    key = None
    if request.param == "encrypted":
        pytest.importorskip("cryptography")
        key = Key.random()
    if request.param == "milvus":
        pytest.importorskip("pymilvus")
        pytest.importorskip("milvus_lite")
        place = MilvusPlace(str(tmp_path / "g.db"), site="berlin")
    with Gallery.create(place, Binding.of(here.embedder_variant), key) as made:
        yield made


@pytest.fixture
def ada(toy: Any, tmp_path: Path) -> Person:
    pictures = [toy.write_scene(tmp_path / "in" / f"{i}.png", 200, 200, [(1, 40 + 5 * i, 48)]) for i in range(2)]
    return Person("ada", tuple(pictures))


def signs(gallery: Gallery) -> list[bool]:
    return [entry.negative for entry in gallery.entries()]


def test_a_picture_enrolled_on_another_engine_is_known(
    here: FaceAnalyzer, elsewhere: FaceAnalyzer, gallery: Gallery, ada: Person, toy: Any, tmp_path: Path
) -> None:
    first = enrol(here, gallery, ada, OPTIONS)
    assert first.added == len(gallery.entries())
    kept = [entry.vector.tobytes() for entry in gallery.entries()]
    assert enrol(elsewhere, gallery, ada, OPTIONS).added == 0
    assert [entry.vector.tobytes() for entry in gallery.entries()] == kept, "the first vector stays"
    other = toy.write_scene(tmp_path / "other.png", 200, 200, [(1, 44, 52)])
    assert enrol(elsewhere, gallery, Person("ada", (other,)), OPTIONS).added == 1, "another picture is another one"
    gallery.rename("ada", "ada lovelace")
    assert enrol(elsewhere, gallery, Person("ada lovelace", ada.pictures), OPTIONS).added == 0
    assert enrol(elsewhere, gallery, Person("bob", ada.pictures[:1]), OPTIONS).added == 1, "of somebody else it is new"


def test_the_last_word_on_a_picture_counts_on_any_engine(
    here: FaceAnalyzer, elsewhere: FaceAnalyzer, gallery: Gallery, ada: Person, toy: Any, tmp_path: Path
) -> None:
    stranger = Person("ada", (toy.write_scene(tmp_path / "stranger.png", 200, 200, [(2, 60, 60)]),))
    enrol(here, gallery, stranger, OPTIONS)
    assert reject(elsewhere, gallery, stranger).added == 1
    assert signs(gallery) == [True]
    assert reject(here, gallery, stranger).added == 0
    assert enrol(here, gallery, stranger, OPTIONS).added == 1
    assert signs(gallery) == [False]


def test_to_enrol_what_is_known_is_no_mistake_however_blurred(
    toy: Any, ada: Person, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["enroll", "--bundle", str(toy.path), "--gallery", str(tmp_path / "g"), str(ada.pictures[0].parent)]
    for said in ("2 faces of 2 people added", "0 faces of 2 people added"):
        assert main(words) == 0
        printed = capsys.readouterr()
        assert said in printed.out
        assert "blurred" in printed.err
    assert main([*words, "--strict"]) == 2
    assert "nobody was enrolled" in capsys.readouterr().err


def test_a_vector_that_was_deleted_may_be_enrolled_again(
    here: FaceAnalyzer, elsewhere: FaceAnalyzer, gallery: Gallery, toy: Any, tmp_path: Path
) -> None:
    one = Person("ada", (toy.write_scene(tmp_path / "1.png", 200, 200, [(1, 40, 48)]),))
    two = Person("ada", (toy.write_scene(tmp_path / "2.png", 200, 200, [(2, 40, 48)]),))
    enrol(here, gallery, one, OPTIONS)
    enrol(here, gallery, two, OPTIONS)
    gone = next(entry for entry in gallery.entries() if entry.source.endswith("1.png"))
    gallery.remove(gone.number)
    assert enrol(elsewhere, gallery, one, OPTIONS).added == 1
    gallery.forget("ada")
    assert enrol(elsewhere, gallery, one, OPTIONS).added == 1


def test_indexing_knows_what_was_enrolled_and_enrolment_what_was_indexed(
    here: FaceAnalyzer, elsewhere: FaceAnalyzer, gallery: Gallery, ada: Person, toy: Any, tmp_path: Path
) -> None:
    third = toy.write_scene(tmp_path / "third.png", 200, 200, [(1, 51, 48)])

    def picture(analyzer: FaceAnalyzer, path: Path, name: str) -> Picture:
        shot = look(analyzer, read_picture(path), str(path))
        assert isinstance(shot, Shot)
        content = hashlib.sha256(path.read_bytes()).digest()
        return Picture(name.encode(), content, NewEntry("ada", shot.vector, str(path)))

    first, second = ada.pictures
    enrol(here, gallery, Person("ada", (first,)), OPTIONS)
    assert gallery.add_pictures([picture(elsewhere, first, "f1"), picture(here, second, "f2")]) == [
        Outcome.KNOWN,
        Outcome.ADDED,
    ]
    assert enrol(elsewhere, gallery, ada, OPTIONS).added == 0
    assert len(gallery.entries()) == 2
    # Enrolled as somebody by mistake, and taken back: indexing may still say whose it is.
    enrol(here, gallery, Person("bob", (third,)), OPTIONS)
    gallery.remove(gallery.entries("bob")[0].number)
    assert gallery.add_pictures([picture(here, third, "f3")]) == [Outcome.ADDED]


def test_a_photo_taken_right_after_a_deleted_one_is_not_taken_for_it(gallery: Gallery) -> None:
    size = gallery.snapshot().vectors.shape[1]
    first = np.eye(1, size, dtype=np.float32)[0]
    second = (0.99 * first + np.sqrt(1 - 0.99**2) * np.eye(2, size, dtype=np.float32)[1]).astype(np.float32)
    second /= np.linalg.norm(second)
    digests = [hashlib.sha256(name).digest() for name in (b"1", b"2")]
    assert gallery.add("ann", np.stack([first, second]), ["1.jpg", "2.jpg"], None, digests) == 2
    gone = next(entry.number for entry in gallery.entries() if entry.source == "1.jpg")
    gallery.remove(gone)
    assert gallery.reject("ann", first[None], ["1.jpg"], None, digests[:1]) == 1
    assert {entry.source: entry.negative for entry in gallery.entries()} == {"1.jpg": True, "2.jpg": False}
