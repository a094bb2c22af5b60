from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edge.errors import EdgeError, EngineError, InputError
from training.detector.data import read_labels, read_zip, without_faces
from training.detector.labels import label_crop, open_teacher, read_pools
from training.detector.losses import relative_error
from training.detector.network import OUTPUT_NAMES, EdgeDetector, load, read_metadata
from training.detector.run import configure_detector, run_detector
from training.detector.stages import units_apart, units_together
from training.detector.teacher import TAPS, Teacher

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def teacher_path(shared_data: Path) -> Path:
    return shared_data / "models" / "yunet_n_dynamic.onnx"


@pytest.fixture(scope="module")
def small_data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen scenes, four photos and four crops of the real data, laid out as the whole."""
    root = tmp_path_factory.mktemp("data")
    source = shared_data / "data"
    (root / "wider" / "train").mkdir(parents=True)
    lines = []
    for name, boxes in read_labels(source / "wider" / "train" / "labels.txt")[:12]:
        (root / "wider" / "train" / name).symlink_to(source / "wider" / "train" / name)
        lines += [f"# {name} 0 0", *(" ".join(f"{v:.1f}" for v in box) for box in boxes)]
    (root / "wider" / "train" / "labels.txt").write_text("\n".join(lines) + "\n")
    for name in ("scenes/celeba.zip", "train/faces112-pins.zip"):
        (root / name).parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(source / name) as full, zipfile.ZipFile(root / name, "w") as small:
            for entry in full.namelist()[:4]:
                small.writestr(entry, full.read(entry))
    return root


def arguments(data: Path, teacher: Path, out: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure_detector(parser)
    named = {
        "--data": data,
        "--teacher": teacher,
        "--unit-teacher": teacher.with_name("yunet_s_dynamic.onnx"),
        "--out": out,
    }
    base = [word for name, path in named.items() for word in (name, str(path))]
    return parser.parse_args([*base, "--size", "64", "--batch", "2", *more])


@pytest.mark.realdata
def test_the_teacher_gives_the_same_answers_with_its_units_tapped(teacher_path: Path) -> None:
    from edge.engines import open_session

    path = teacher_path.with_name("yunet_s_dynamic.onnx")
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 96)).astype(np.float32)
    tapped, plain = Teacher(path, TAPS)(image), open_session(path).run({"input": image})
    for name in OUTPUT_NAMES:
        np.testing.assert_array_equal(tapped[name], plain[name])
    assert tapped["first"].shape == (1, 16, 32, 48)
    assert tapped["narrow_3"].shape == (1, 64, 16, 24)
    for name in ("stage_16_0", "stage_16_1", "neck_16"):
        assert tapped[name].shape == (1, 64, 4, 6)
    assert all(float(tapped[name].min()) >= 0 for name in TAPS)  # each ends in a ReLU


@pytest.mark.realdata
def test_each_unit_is_compared_with_the_teachers_on_what_the_teacher_feeds_it(teacher_path: Path) -> None:
    """Given the teacher's first unit, that unit's error is nothing, and the others' stay what they were."""
    teacher = Teacher(teacher_path.with_name("yunet_s_dynamic.onnx"), TAPS)
    torch.manual_seed(0)
    network = EdgeDetector().eval()
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)
    images, taught = torch.from_numpy(pixels), {k: torch.from_numpy(v) for k, v in teacher(pixels).items()}
    with torch.no_grad():
        apart, raw = units_apart(network, images, taught)
        _, chained = units_together(network, images, taught)
        own = taught | {"stem": network.stem.unit(taught["first"])}
        knows, _ = units_apart(network, images, own)
        expected = apart - relative_error(own["stem"], taught["stem"])
        first = F.max_pool2d(taught["stem"], 2), F.max_pool2d(own["stem"], 2)
        expected -= relative_error(network.narrow[0](first[0]), taught["narrow_0"])
        expected += relative_error(network.narrow[0](first[1]), taught["narrow_0"])
        torch.testing.assert_close(knows, expected)
        for one, other in zip(chained, network.predictions(images), strict=True):
            torch.testing.assert_close(one, other)
        assert not torch.equal(raw[0], chained[0])
        assert float(units_together(network, images, {})[0]) == 0.0


@pytest.mark.realdata
def test_another_network_is_no_teacher(teacher_path: Path) -> None:
    with pytest.raises(EngineError):
        Teacher(teacher_path, TAPS)


@pytest.mark.realdata
def test_labels_keep_true_boxes_and_add_plausible_landmarks(
    small_data: Path, teacher_path: Path, tmp_path: Path
) -> None:
    pools = read_pools(small_data, teacher_path, 10, tmp_path / "labels.npz")
    truth = read_labels(small_data / "wider" / "train" / "labels.txt")
    assert len(pools.held_out) == 2
    assert [picture.boxes.tolist() for picture in pools.scenes] == [
        boxes.tolist() for i, (_, boxes) in enumerate(truth) if i % 10
    ]
    assert len(pools.portraits) == 4
    known = 0
    for picture in [*pools.scenes, *pools.portraits, *pools.crops]:
        for box, points in zip(picture.boxes, picture.landmarks, strict=True):
            if np.isnan(points).any():
                continue
            known += 1
            margin = 0.25 * (box[2:] - box[:2])
            assert bool((points > box[:2] - margin).all())
            assert bool((points < box[2:] + margin).all())
            assert points[[0, 1], 1].mean() < points[[3, 4], 1].mean() or box[3] - box[1] < 40
    assert known >= 8


@pytest.mark.realdata
def test_a_crop_is_labelled_where_the_template_puts_the_face(small_data: Path, teacher_path: Path) -> None:
    from edge.align import ARCFACE_112

    teacher = open_teacher(teacher_path)
    pictures = [label_crop(crop, teacher) for crop in read_zip(small_data / "train" / "faces112-pins.zip")]
    found = np.concatenate([picture.landmarks for picture in pictures])
    assert len(found) >= 3
    assert float(np.hypot(*(found.mean(axis=0) - ARCFACE_112).T).mean()) < 6  # of an eye distance of 35
    flat = np.full((112, 112, 3), 128, np.uint8)
    assert len(label_crop(without_faces(flat), teacher).boxes) == 0


@pytest.mark.realdata
def test_labels_are_made_once(small_data: Path, teacher_path: Path, tmp_path: Path) -> None:
    from training.detector import labels as module

    file = tmp_path / "labels.npz"
    first = read_pools(small_data, teacher_path, 10, file)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("label_scene", "label_portrait", "label_crop"):
            patch.delattr(module, name)  # a second labelling would need them
        second = read_pools(small_data, teacher_path, 10, file)
    for pool in ("scenes", "portraits", "crops"):
        for one, other in zip(getattr(first, pool), getattr(second, pool), strict=True):
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.landmarks, other.landmarks)


@pytest.mark.realdata
@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unbroken_one_does(small_data: Path, teacher_path: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert run_detector(arguments(small_data, teacher_path, whole, "--apart", "5", "--steps", "5")) == 0
    # The schedule follows the steps in all, so the first part is cut by stopping, not by asking for fewer steps.
    from training.detector import run as module

    class StoppedError(Exception):
        pass

    original = module.Run._update

    def stop_after_six(self: module.Run) -> dict[str, float]:
        if self.step == 6:
            self._save()
            raise StoppedError
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Run, "_update", stop_after_six)
        with pytest.raises(StoppedError):
            run_detector(arguments(small_data, teacher_path, parts, "--apart", "5", "--steps", "5"))
    assert not parts.exists()
    assert run_detector(arguments(small_data, teacher_path, parts, "--apart", "5", "--steps", "5")) == 0
    first, second = load(whole).state_dict(), load(parts).state_dict()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    assert read_metadata(parts)["steps"] == "10"
    with pytest.raises(InputError, match="seed 1"):
        run_detector(arguments(small_data, teacher_path, parts, "--apart", "5", "--steps", "7", "--seed", "2"))


@pytest.mark.realdata
@pytest.mark.slow
def test_a_short_training_teaches_the_units(
    small_data: Path, teacher_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights.safetensors"
    run_detector(arguments(small_data, teacher_path, out, "--apart", "150", "--steps", "50", "--validate-every", "200"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " features " in line]
    features = [float(words[words.index("features") + 1]) for words in lines]
    assert features[2] < 0.5 * features[0]  # the units learn what they are taught


@pytest.mark.parametrize(
    "option", [("--size", "100"), ("--steps", "0"), ("--apart", "0"), ("--batch", "0"), ("--threads", "0")]
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors", *option))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"yunet_s_dynamic\.onnx: cannot be read"):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors"))
    with pytest.raises(InputError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize("text", ["1 2 3 4\n", "# a.jpg 10 10\n1 2 3\n"])
def test_a_damaged_label_file_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"labels\.txt:[12]:"):
        read_labels(path)


def test_names_with_spaces_and_pictures_without_faces_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("# a face.jpg 10 20\n1 2 3 4.5\n# none.jpg 5 5\n")
    first, second = read_labels(path)
    assert first[0] == "a face.jpg"
    assert first[1].tolist() == [[1, 2, 3, 4.5]]
    assert (second[0], second[1].shape) == ("none.jpg", (0, 4))


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    from training.detector.data import read_scenes

    (tmp_path / "labels.txt").write_text("# broken.jpg 10 10\n")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        read_scenes(tmp_path)
    cv2.imwrite(str(tmp_path / "broken.jpg"), np.zeros((10, 10, 3), np.uint8))
    assert len(read_scenes(tmp_path)) == 1
    with pytest.raises(InputError, match="zip"):
        list(read_zip(tmp_path / "broken.jpg"))
