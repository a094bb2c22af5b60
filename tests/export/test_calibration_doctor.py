"""The calibration doctor on sets that were made bad on purpose, and on one whose duplicates are known."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.align import align
from edge.detect import find_main_face
from edge.errors import InputError
from edge.types import Image
from edge.weights import find_weights
from export.doctor.checks import steadiness
from export.doctor.cli import VERB
from export.doctor.colour import colour_order
from export.doctor.duplicates import find_pairs, grouped, registered_correlation
from export.doctor.examine import _embedded, examine
from export.doctor.findings import Diagnosis, Finding
from export.doctor.plot import draw
from export.doctor.stability import Point, Stability, range_stability
from export.doctor.survey import survey
from export.passes import Passes
from export.photos import Finder
from export.sources import Source, load_embedder_checkpoint

Models = tuple[Source, Finder]


def people() -> list[Image]:
    """Two people, as their pictures come inside dependencies."""
    import matplotlib.cbook
    from skimage.data import astronaut

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    assert hopper is not None
    return [cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR), np.asarray(hopper, np.uint8)]


@pytest.fixture(scope="module")
def models() -> Models:
    embedder = load_embedder_checkpoint(find_weights(None, "embedder"), Passes())
    return embedder, Finder.of(None, None)


@pytest.fixture(scope="module")
def faces(models: Models) -> list[Image]:
    """An aligned crop of each of the people."""
    crops = []
    with models[1].open() as detector:
        for image in people():
            face = find_main_face(detector, image)
            assert face is not None
            crops.append(align(image, face.landmarks))
    return crops


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def by_check(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnosis.findings}


def test_every_blemish_is_found_and_named(models: Models, tmp_path: Path) -> None:
    first, second = people()
    photos = tmp_path / "photos"
    write(photos / "eileen" / "sharp.png", first)
    write(photos / "eileen" / "again.jpg", cv2.resize(first, (400, 400), interpolation=cv2.INTER_AREA))
    write(photos / "eileen" / "cropped.png", first[20:330, 90:390])
    write(photos / "eileen" / "soft.png", cv2.GaussianBlur(cv2.flip(first, 1), (0, 0), 5))
    write(photos / "grace" / "sharp.png", second)
    (photos / "grace" / "copy.png").write_bytes((photos / "grace" / "sharp.png").read_bytes())
    write(photos / "grace" / "tiny.png", cv2.resize(cv2.flip(second, 1), None, fx=0.16, fy=0.16))
    write(photos / "grace" / "exchanged.png", np.ascontiguousarray(cv2.flip(second[..., ::-1], 1)))
    write(photos / "both.png", np.hstack([first[:500, :500], cv2.flip(second[:500, :500], 1)]))
    write(photos / "white.png", np.full((200, 200, 3), 255, np.uint8))
    write(photos / "stripes.png", np.tile(np.array([0, 255] * 100, np.uint8), (200, 1))[..., None].repeat(3, axis=2))
    (photos / "broken.png").write_bytes(b"nothing")
    found = by_check(examine(photos, *models, quiet=True).diagnosis)
    assert found["photos"].pictures == ("broken.png",)
    assert found["constant"].pictures == ("white.png",)
    assert found["faces"].pictures == ("stripes.png",)
    assert "both.png" in found["several faces"].pictures
    assert "eileen/sharp.png" not in found["several faces"].pictures
    assert "grace/tiny.png" in found["size"].pictures
    assert "eileen/soft.png" in found["blur"].pictures
    assert "eileen/sharp.png" not in found["blur"].pictures
    assert found["colour order"].pictures == ("grace/exchanged.png",)
    assert found["exact copies"].pictures == ("grace/copy.png = grace/sharp.png",)
    near = {name for group in found["near-duplicates"].pictures for name in group.split(" = ")}
    assert {"eileen/sharp.png", "eileen/again.jpg", "eileen/cropped.png"} <= near
    assert all(finding.advice for finding in found.values() if finding.severity in ("warning", "fatal"))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_leakage_is_found_by_digest_and_by_face(models: Models, tmp_path: Path, kind: str) -> None:
    first, second = people()
    write(tmp_path / "photos" / "a.png", first)
    write(tmp_path / "photos" / "b.png", second)
    write(tmp_path / "test" / "other.png", cv2.flip(first, 1))
    write(tmp_path / "test" / "part.jpg", second[10:500, 40:460])
    (tmp_path / "test" / "same.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    place = tmp_path / "test"
    if kind == "zip":
        place = tmp_path / "test.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for path in sorted((tmp_path / "test").iterdir()):
                archive.write(path, f"test/{path.name}")
    prefix = "test/" if kind == "zip" else ""
    leak = by_check(examine(tmp_path / "photos", *models, [place], quiet=True).diagnosis)["leakage"]
    assert leak.severity == "fatal"
    assert leak.pictures == (f"a.png = {prefix}same.png", f"b.png = {prefix}part.jpg")
    assert "1 of them byte for byte" in leak.seen


def test_exchanged_colours_are_told_from_right_ones_and_from_grey(faces: list[Image]) -> None:
    assert not colour_order(faces).exchanged
    assert colour_order([np.ascontiguousarray(face[..., ::-1]) for face in faces]).exchanged
    grey = colour_order([cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) for f in faces])
    assert grey.coloured == 0
    assert not grey.exchanged


def test_one_face_shifted_and_compressed_lies_on_itself_and_not_on_another(faces: list[Image]) -> None:
    first, second = faces
    turn = cv2.getRotationMatrix2D((56, 56), 4, 1.04)
    turn[:, 2] += (2, -1.5)
    moved = cv2.warpAffine(first, turn, (112, 112))
    again = cv2.imdecode(cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
    assert registered_correlation(first, np.asarray(again, np.uint8)) > 0.985
    assert registered_correlation(first, second) < 0.9


def test_ranges_of_one_face_over_and_over_hold_still_and_of_many_settle(models: Models, faces: list[Image]) -> None:
    model = models[0].float_model
    generator = np.random.default_rng(0)
    same = range_stability(model, np.stack([faces[0]] * 12), quiet=True)
    assert all(point.high == 0 for point in same.points)
    assert same.enough == 4
    varied = np.stack(
        [np.clip(faces[i % 2] * generator.uniform(0.2, 1.8) + generator.normal(0, 9, (112, 112, 3)), 0, 255)
         for i in range(24)]
    ).astype(np.uint8)  # fmt: skip
    result = range_stability(model, varied, quiet=True)
    highs = [point.high for point in result.points]
    assert [point.photos for point in result.points] == [4, 8, 16, 24]
    assert highs[0] > 1.5 * highs[-1] > 0


def test_too_few_photos_say_how_many_it_would_take(tmp_path: Path) -> None:
    result = Stability(40, 60, (Point(8, 0.2, 0.4), Point(40, 0.05, 0.1)), (("conv1", 0.1),))
    finding = steadiness(result)
    assert "about 160" in finding.advice, "half the movement takes four times the photos"
    draw(result, tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")) is not None


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    return VERB.run(parser.parse_args([str(word) for word in words]))


def test_the_command_writes_its_report_and_ends_with_2_where_it_is_fatal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "photos" / "a.png", people()[0])
    assert run("doctor", tmp_path / "photos", "--out", tmp_path / "report", "--json") == 2
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "report" / "doctor.json").read_text())
    assert printed["fatal"]
    assert printed["findings"][0]["check"] == "photos"


def test_copies_of_one_photo_are_not_fit_however_many_they_are(models: Models, tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"{number}.png", people()[0])
    found = by_check(examine(tmp_path, *models, quiet=True).diagnosis)
    assert found["photos"].severity == "fatal"
    assert found["photos"].seen == "12 pictures with a face, of 1 photos"


def test_pictures_that_cannot_be_read_are_not_called_faceless(models: Models, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "b.jpg"):
        (photos / "ada").mkdir(parents=True, exist_ok=True)
        (photos / "ada" / name).write_bytes(b"nothing")
    (photos / "ada" / "c.png").symlink_to("/proc/self/mem")  # there, and an error to read
    found = by_check(examine(photos, *models, quiet=True).diagnosis)
    assert "3 files named as pictures cannot be read" in found["photos"].seen
    assert found["photos"].pictures == ("ada/a.png", "ada/b.jpg", "ada/c.png")
    assert found["photos"].severity == "fatal"
    assert "no face" not in found["faces"].seen
    assert "every picture shows one" not in found["faces"].seen


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere",), "no such folder"),
        ((".", "--onnx", "a.onnx"), "--contract"),
    ],
)
def test_mistakes_say_what_to_do(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run("doctor", *words)


@pytest.mark.realdata
@pytest.mark.slow
def test_known_duplicates_are_found_and_little_else(models: Models, shared_data: Path) -> None:
    """Against groups that another detector, embedder and rule found; those for which a threshold was chosen."""
    folder = shared_data / "data" / "avengers" / "cropped_images"
    groups = json.loads((folder.parent / "near_duplicate_groups.json").read_text())["groups"]
    owner = {name: i for i, group in enumerate(groups) for name in group}
    hits, wanted, given = 0, 0, 0
    for person in ("robert_downey_jr", "scarlett_johansson"):
        with models[1].open() as detector:
            looks = survey(folder / person, detector, quiet=True).looks
        found = grouped(len(looks), find_pairs(looks, _embedded(models[0], looks)))
        pairs = {(i, j) for group in found for i in group for j in group if i < j}
        names = [f"{person}/{look.name}" for look in looks]
        truth = {
            (i, j)
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if owner.get(names[i], -1) == owner.get(names[j], -2)
        }
        hits, wanted, given = hits + len(pairs & truth), wanted + len(truth), given + len(pairs)
    assert hits >= 0.75 * wanted
    assert hits >= 0.95 * given
