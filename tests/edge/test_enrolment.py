from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.cli.main import main
from edge.enrolment import EnrolmentOptions, Problem, Report, add, best_shots, enrol, find_people
from edge.errors import GalleryError, InputError, SourceError
from edge.gallery import Binding, Gallery
from edge.gallery.exchange import export_gallery, import_gallery, migrate
from edge.matching import match
from edge.sources import open_source


@pytest.fixture(scope="module")
def analyzer(toy: Any) -> Iterator[FaceAnalyzer]:
    with FaceAnalyzer(toy.bundle) as opened:
        yield opened


@pytest.fixture
def gallery(analyzer: FaceAnalyzer, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "g", Binding.of(analyzer.embedder_variant)) as made:
        yield made


OPTIONS = EnrolmentOptions(threshold=0.7)


def test_folders_and_lone_pictures_name_people(toy: Any, tmp_path: Path) -> None:
    toy.write_scene(tmp_path / "in" / "ada lovelace" / "b.png", 160, 160, [(1, 40, 40)])
    toy.write_scene(tmp_path / "in" / "ada lovelace" / "a.png", 160, 160, [(1, 48, 40)])
    toy.write_scene(tmp_path / "in" / "bob.png", 160, 160, [(2, 40, 40)])
    (tmp_path / "in" / ".cache").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("x")
    people = find_people(tmp_path / "in")
    assert [(p.name, [x.name for x in p.pictures]) for p in people] == [
        ("ada lovelace", ["a.png", "b.png"]),
        ("bob", ["bob.png"]),
    ]
    (tmp_path / "in" / "eve").mkdir()
    with pytest.raises(InputError, match=r"eve: no picture in this folder"):
        find_people(tmp_path / "in")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="nobody to enrol"):
        find_people(tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        find_people(tmp_path / "nowhere")


def test_a_picture_whose_name_is_no_utf8_is_enrolled_from_where_can_be_written(
    toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
) -> None:
    home = tmp_path / "in" / "ada"
    toy.write_scene(home / "a.png", 160, 160, [(1, 40, 40)])
    (home / "a.png").rename(home / "a\udcff.png")
    (home / "b\udcff.png").write_text("no picture")
    report = enrol(analyzer, gallery, find_people(tmp_path / "in")[0], OPTIONS)
    assert report.added == 1
    assert [entry.source for entry in gallery.entries()] == [f"{home}/a\ufffd.png"]
    assert (Problem.UNREADABLE, f"{home}/b\ufffd.png") in [(notice.problem, notice.source) for notice in report.notices]


def test_every_doubtful_picture_gets_its_own_notice(
    toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
) -> None:
    home = tmp_path / "in" / "ada"
    for i in range(3):
        toy.write_scene(home / f"good{i}.png", 200, 200, [(1, 40 + 3 * i, 56)])
    toy.write_scene(home / "empty.png", 200, 200, [])
    toy.write_scene(home / "two.png", 300, 200, [(1, 8, 40), (2, 160, 80)])
    toy.write_scene(home / "wrong.png", 200, 200, [(5, 40, 40)])
    (home / "broken.png").write_bytes(b"broken")
    done = []
    (person,) = find_people(tmp_path / "in")
    report = enrol(analyzer, gallery, person, OPTIONS, lambda: done.append(1))
    problems = {(Path(n.source).name, n.problem) for n in report.notices if n.problem is not Problem.BLURRED}
    assert problems == {
        ("empty.png", Problem.NO_FACE),
        ("two.png", Problem.SEVERAL_FACES),
        ("wrong.png", Problem.UNLIKE_OTHERS),
        ("broken.png", Problem.UNREADABLE),
    }
    assert (report.pictures, report.added, len(done)) == (7, 4, 7)
    assert len(gallery.entries("ada")) == 4


def test_strict_leaves_the_doubtful_out(toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path) -> None:
    for i, person in enumerate((1, 1, 7)):
        grain = np.random.default_rng(i).integers(-60, 60, (200, 200, 3))
        picture = np.clip(toy.scene(200, 200, [(person, 40 + 8 * i, 48)]) + grain, 0, 255).astype(np.uint8)
        # Sharp as a photograph is, but with the patch that the toy detector looks for left whole.
        x, y = 40 + 8 * i + 24, 72
        picture[y : y + 16, x : x + 16] = (255, 0, 0)
        (tmp_path / "in" / "ada").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / "ada" / f"{i}.png"), picture)
    (person,) = find_people(tmp_path / "in")
    report = enrol(analyzer, gallery, person, EnrolmentOptions(strict=True, threshold=0.7))
    assert [(Path(n.source).name, n.problem) for n in report.notices] == [("2.png", Problem.UNLIKE_OTHERS)]
    assert [Path(entry.source).name for entry in gallery.entries("ada")] == ["0.png", "1.png"]


def test_wrong_pictures_do_not_vouch_for_each_other(
    toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
) -> None:
    toy.write_scene(tmp_path / "first" / "bob.png", 200, 200, [(5, 40, 40)])
    enrol(analyzer, gallery, find_people(tmp_path / "first")[0], OPTIONS)
    home = tmp_path / "in" / "ada"
    for i in range(3):
        toy.write_scene(home / f"good{i}.png", 200, 200, [(1, 40 + 3 * i, 56)])
    for i in range(2):
        toy.write_scene(home / f"wrong{i}.png", 200, 200, [(5, 40 + 5 * i, 56)])
    (person,) = find_people(tmp_path / "in")
    report = enrol(analyzer, gallery, person, OPTIONS)
    doubts = {(Path(n.source).name, n.problem) for n in report.notices if n.problem is not Problem.BLURRED}
    assert doubts == {
        (f"wrong{i}.png", problem) for i in range(2) for problem in (Problem.UNLIKE_OTHERS, Problem.KNOWN_AS_OTHER)
    }


def test_who_is_known_under_another_name_is_said_but_a_stranger_is_not(
    toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
) -> None:
    toy.write_scene(tmp_path / "in" / "ada" / "a.png", 200, 200, [(1, 40, 40)])
    enrol(analyzer, gallery, find_people(tmp_path / "in")[0], OPTIONS)
    toy.write_scene(tmp_path / "again" / "countess.png", 200, 200, [(1, 64, 56)])
    toy.write_scene(tmp_path / "again" / "dora.png", 200, 200, [(4, 64, 56)])
    countess, dora = (enrol(analyzer, gallery, p, OPTIONS) for p in find_people(tmp_path / "again"))
    assert any("known as ada already" in notice.text for notice in countess.notices)
    assert all(notice.problem is Problem.BLURRED for notice in dora.notices)


def test_a_camera_gives_its_best_frames_and_only_those_with_one_face(
    toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
) -> None:
    frames = []
    for i in range(50):
        people = [(1, 40 + i, 56)] + ([(2, 200, 100)] if 10 <= i < 20 else [])
        frame = toy.scene(320, 200, people if i < 30 else [])
        # Everything is out of focus but one frame of the first span and one of the third.
        frames.append(frame if i in (5, 25) else cv2.GaussianBlur(frame, (0, 0), 1.5))
    video = toy.write_video(tmp_path / "door.mp4", frames, fps=10)
    with open_source(str(video)) as source:
        shots = best_shots(analyzer, source, count=5, seconds=5.0)
    assert [shot.source.rpartition(" at ")[2] for shot in shots] == ["0.50 s", "2.50 s"]
    report = add(gallery, shots, OPTIONS, Report("ada", len(shots)))
    assert report.added == 2
    empty = toy.write_video(tmp_path / "empty.mp4", frames[30:], fps=10)
    with open_source(str(empty)) as source, pytest.raises(SourceError, match="no frame with exactly one face"):
        best_shots(analyzer, source, count=5, seconds=5.0)


def test_a_stranger_who_was_rejected_is_not_given_the_name_again(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger whose picture is half ada's: alike enough for her name until somebody says it is not her."""
    ada, other = toy.portrait(1).astype(np.float32), toy.portrait(2).astype(np.float32)
    scene = toy.scene(200, 200, [(1, 48, 48)])
    mixed = np.clip(0.7 * ada + 0.3 * other, 0, 255).astype(np.uint8)
    mixed[24:40, 24:40] = (255, 0, 0)
    scene[48:112, 48:112] = mixed
    (tmp_path / "stranger").mkdir()
    cv2.imwrite(str(tmp_path / "stranger" / "1.png"), scene)
    toy.write_scene(tmp_path / "in" / "ada.png", 200, 200, [(1, 40, 40)])
    toy.write_scene(tmp_path / "empty.png", 200, 200, [])
    gallery, bundle = str(tmp_path / "g"), ["--bundle", str(toy.path)]
    assert main(["enroll", *bundle, "--gallery", gallery, str(tmp_path / "in")]) == 0

    def names(picture: Path) -> list[str | None]:
        with FaceAnalyzer(toy.bundle) as analyzer, Gallery.open(Path(gallery)) as opened:
            image = cv2.imread(str(picture))
            crops = analyzer.align(image, analyzer.detect(image))
            return [found.identity for found in match(opened.snapshot(), analyzer.embed(crops), toy.threshold)]

    assert names(tmp_path / "stranger" / "1.png") == ["ada"]
    reject = ["gallery", "reject", gallery, "ada"]
    assert main([*reject, str(tmp_path / "stranger"), str(tmp_path / "empty.png"), *bundle]) == 0
    assert names(tmp_path / "stranger" / "1.png") == [None]
    assert names(tmp_path / "in" / "ada.png") == ["ada"]
    said = capsys.readouterr()
    assert "ada: 1 new negatives of 2 pictures" in said.out
    assert "empty.png: no face found" in said.err
    assert main([*reject, str(tmp_path / "empty.png"), *bundle]) == 2
    assert main(["gallery", "reject", gallery, "eve", str(tmp_path / "stranger"), *bundle]) == 2
    assert "nobody here is called 'eve'" in capsys.readouterr().err


class TestExchange:
    def test_an_exported_gallery_comes_back_whole(
        self, toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
    ) -> None:
        for person, keep in (("1", True), ("2", False)):
            toy.write_scene(tmp_path / person / f"Zoë {person}" / "a.png", 200, 200, [(int(person), 40, 40)])
            toy.write_scene(tmp_path / person / f"Zoë {person}" / "b.png", 200, 200, [(int(person), 73, 50)])
            (found,) = find_people(tmp_path / person)
            enrol(analyzer, gallery, found, EnrolmentOptions(keep_crops=keep))
        vector = gallery.entries("Zoë 1")[0].vector
        gallery.reject("Zoë 2", vector[None], ["Zoë 1 again"])
        assert export_gallery(gallery, tmp_path / "g.npz") == 5
        assert stat.S_IMODE((tmp_path / "g.npz").stat().st_mode) == 0o600
        assert import_gallery(tmp_path / "g.npz", tmp_path / "other") == 5
        assert import_gallery(tmp_path / "g.npz", tmp_path / "other") == 0
        with Gallery.open(tmp_path / "other") as other:
            for mine, theirs in zip(gallery.entries(), other.entries(), strict=True):
                assert (mine.identity, mine.source, mine.crop) == (theirs.identity, theirs.source, theirs.crop)
                assert mine.negative == theirs.negative
                np.testing.assert_array_equal(mine.vector, theirs.vector)
            assert [entry.crop is not None for entry in other.entries()] == [True, True, False, False, False]
            assert [entry.negative for entry in other.entries()] == [False] * 4 + [True]

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"plain"])
    def test_a_file_that_is_no_export_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "x.npz").write_bytes(data)
        with pytest.raises(InputError, match="not an exported gallery"):
            import_gallery(tmp_path / "x.npz", tmp_path / "other")
        assert not (tmp_path / "other").exists()

    def test_other_arrays_and_pickles_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=np.zeros(3))
        np.savez(tmp_path / "y.npz", header=np.array([{"format": 1}], dtype=object))
        for name in ("x.npz", "y.npz"):
            with pytest.raises(InputError, match="not an exported gallery") as refused:
                import_gallery(tmp_path / name, tmp_path / "other")
            assert "allow_pickle" not in str(refused.value), "nobody is told to unpickle somebody else's file"

    def test_kept_crops_move_to_another_model_and_without_them_it_is_said(
        self, toy: Any, analyzer: FaceAnalyzer, gallery: Gallery, tmp_path: Path
    ) -> None:
        toy.write_scene(tmp_path / "in" / "ada.png", 200, 200, [(1, 40, 40)])
        toy.write_scene(tmp_path / "in" / "bob.png", 200, 200, [(2, 40, 40)])
        ada, bob = find_people(tmp_path / "in")
        enrol(analyzer, gallery, bob, EnrolmentOptions())
        binding = Binding("c" * 64, "d" * 64, "embedder-new", 48)
        with pytest.raises(GalleryError, match="no crop was kept"):
            migrate(gallery, tmp_path / "new", binding, analyzer.embedder)
        enrol(analyzer, gallery, ada, EnrolmentOptions(keep_crops=True))
        other = cv2.resize(toy.portrait(3), (112, 112))
        crop = cv2.imencode(".png", other)[1].tobytes()
        gallery.reject("ada", analyzer.embed(other[None]), ["twin"], [crop])
        moved = migrate(gallery, tmp_path / "new", binding, analyzer.embedder)
        assert (moved.embedded, moved.dropped) == (2, 1)
        with Gallery.open(tmp_path / "new") as new:
            assert new.binding == binding
            assert [person.name for person in new.identities()] == ["ada"]
            assert [entry.negative for entry in new.entries()] == [False, True]
            for mine, theirs in zip(gallery.entries("ada"), new.entries(), strict=True):
                np.testing.assert_allclose(theirs.vector, mine.vector, atol=1e-5)
