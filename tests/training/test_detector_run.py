from __future__ import annotations

import argparse
import json
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge.errors import EdgeError, EngineError, InputError
from training.detector.augment import Sample
from training.detector.cascade import UNITS, Bank, Cascade, fill_bank
from training.detector.cli import configure_detector, run_detector
from training.detector.data import Picture, Pools, read_labels, read_zip, without_faces
from training.detector.labels import LandmarkTeacher, label_crop, read_pools
from training.detector.losses import relative_error
from training.detector.network import OUTPUT_NAMES, EdgeDetector, load, save
from training.detector.run import Recipe, Run
from training.detector.targets import grid
from training.detector.teacher import TAPS, Teacher
from training.weights_file import read_metadata

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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


SHORT = ("--bank", "16", "--unit-steps", "2", "--steps", "5")


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


def _bank(teacher_path: Path, count: int) -> Bank:
    """Smooth pictures without a face, and what YuNet-s makes of them."""
    teacher = Teacher(teacher_path.with_name("yunet_s_dynamic.onnx"), TAPS)
    rng = np.random.default_rng(0)
    nothing = np.zeros((0, 4), np.float32)
    samples = [
        Sample(
            cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC),
            nothing,
            np.zeros((0, 5, 2), np.float32),
        )
        for _ in range(count)
    ]
    return fill_bank(iter(samples), count, teacher)


@pytest.mark.realdata
def test_a_bank_holds_what_the_teacher_answers(teacher_path: Path) -> None:
    bank = _bank(teacher_path, 3)
    teacher = Teacher(teacher_path.with_name("yunet_s_dynamic.onnx"), TAPS)
    answers = teacher(bank.images[1:2].float().numpy())
    np.testing.assert_array_equal(bank.heads["kps_16"][1], answers["kps_16"][0])
    np.testing.assert_allclose(bank.features["stage_16_1"][1], answers["stage_16_1"][0], rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="0 samples came, 2"):
        fill_bank(iter([]), 2, teacher)


@pytest.mark.realdata
def test_units_taught_in_a_row_make_the_network_answer_as_the_teacher(teacher_path: Path) -> None:
    """What the cascade leaves is the network itself: its features, run through, are as near as was reported."""
    torch.manual_seed(0)
    network = EdgeDetector()
    errors = dict(Cascade(network, _bank(teacher_path, 16), grid(64, 64), 60, 1e-2, seed=1, done=0).run())
    assert tuple(errors) == UNITS
    bank = _bank(teacher_path, 16)
    untaught, together = (_errors(one.eval(), bank) for one in (EdgeDetector(), network))
    assert np.mean(list(together.values())) < 0.4 * np.mean(list(untaught.values()))
    for name, error in together.items():
        assert error == pytest.approx(errors[name], rel=0.5), name


@torch.no_grad()
def _errors(network: EdgeDetector, bank: Bank) -> dict[str, float]:
    """Relative errors of the network's own features, from the pictures on."""
    x = network.stem(bank.images.float())
    features = {}
    for number, unit in enumerate(network.narrow):
        features[f"narrow_{number}"] = x = unit(x)
    for level, stride in enumerate((8, 16, 32)):
        x = torch.nn.functional.max_pool2d(x, 2)
        for number, unit in enumerate(network.stages[level]):  # type: ignore[arg-type]
            features[f"stage_{stride}_{number}"] = x = unit(x)
    return {name: float(relative_error(x, bank.features[name].float())) for name, x in features.items()}


@pytest.mark.realdata
def test_a_cascade_goes_on_after_the_units_that_are_done(teacher_path: Path) -> None:
    def taught(stop: int) -> EdgeDetector:
        torch.manual_seed(0)
        network = EdgeDetector()

        def cascade(done: int) -> Cascade:
            return Cascade(network, _bank(teacher_path, 8), grid(64, 64), 2, 1e-2, seed=1, done=done)

        for number, _ in enumerate(cascade(0).run()):
            if number + 1 == stop:
                list(cascade(stop).run())
                break
        return network

    straight, resumed = taught(99).state_dict(), taught(6).state_dict()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.realdata
def test_another_network_is_no_teacher(teacher_path: Path) -> None:
    with pytest.raises(EngineError):
        Teacher(teacher_path, TAPS)


@pytest.mark.realdata
def test_labels_keep_true_boxes_and_add_plausible_landmarks(
    small_data: Path, teacher_path: Path, tmp_path: Path
) -> None:
    pools = read_pools(small_data, LandmarkTeacher(teacher_path), 10, tmp_path / "labels.npz")
    truth = read_labels(small_data / "wider" / "train" / "labels.txt")
    assert len(pools.held_out) == 2
    assert [picture.boxes.tolist() for picture in pools.scenes] == [
        boxes.tolist() for i, (_, boxes) in enumerate(truth) if i % 10
    ]
    assert (len(pools.portraits), len(pools.held_portraits)) == (3, 1)
    known = 0
    for picture in [*pools.scenes, *pools.portraits, *pools.held_portraits, *pools.crops]:
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

    teacher = LandmarkTeacher(teacher_path)
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
    first = read_pools(small_data, LandmarkTeacher(teacher_path), 10, file)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("label_scene", "label_portrait", "label_crop"):
            patch.delattr(module, name)  # a second labelling would need them
        second = read_pools(small_data, LandmarkTeacher(teacher_path), 10, file)
    for pool in ("scenes", "portraits", "crops"):
        for one, other in zip(getattr(first, pool), getattr(second, pool), strict=True):
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.landmarks, other.landmarks)


@pytest.mark.realdata
@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unbroken_one_does(small_data: Path, teacher_path: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert run_detector(arguments(small_data, teacher_path, whole, *SHORT)) == 0
    # The schedule follows the steps in all, so the first part is cut by stopping, not by asking for fewer steps.
    from training.detector import run as module

    class StoppedError(Exception):
        pass

    original = module.Run._update

    def stop_after_three(self: module.Run) -> dict[str, float]:
        if self.step == 3:
            self._save()
            raise StoppedError
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Run, "_update", stop_after_three)
        with pytest.raises(StoppedError):
            run_detector(arguments(small_data, teacher_path, parts, *SHORT))
    assert not parts.exists()
    assert run_detector(arguments(small_data, teacher_path, parts, *SHORT)) == 0
    first, second = load(whole).state_dict(), load(parts).state_dict()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    assert read_metadata(parts)["steps"] == "5"
    course = json.loads(parts.with_suffix(".training.json").read_text(encoding="utf-8"))
    assert course["recipe"]["unit_steps"] == 2
    assert "10 WIDER FACE val pictures" in course["data"]
    assert course["took"]["cpu_seconds"] > 0
    assert course["held_out"].startswith("AP@0.5")
    with pytest.raises(InputError, match="seed 1"):
        run_detector(arguments(small_data, teacher_path, parts, "--steps", "7", "--seed", "2"))


@pytest.mark.realdata
@pytest.mark.slow
def test_what_it_will_take_is_said_before_it_begins_and_timing_it_changes_nothing(
    small_data: Path, teacher_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed, untimed = tmp_path / "timed.safetensors", tmp_path / "untimed.safetensors"
    assert run_detector(arguments(small_data, teacher_path, timed, *SHORT)) == 0
    lines = capsys.readouterr().out.splitlines()
    plan, first = (next(i for i, line in enumerate(lines) if line.startswith(word)) for word in ("takes", "unit 1/"))
    assert plan < first
    assert re.fullmatch(rf"takes about \d+ s: {len(UNITS)} units \d+ s, 5 steps of \d+\.\d\d s", lines[plan])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "plan", lambda self: "")
        assert run_detector(arguments(small_data, teacher_path, untimed, *SHORT)) == 0
    one, other = load(timed).state_dict(), load(untimed).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)
    capsys.readouterr()
    assert run_detector(arguments(small_data, teacher_path, timed, *SHORT, "--steps", "7")) == 0
    assert re.search(r"^takes about \d+ s: 2 steps of", capsys.readouterr().out, re.MULTILINE), "what is left"
    assert run_detector(arguments(small_data, teacher_path, timed, *SHORT, "--steps", "7")) == 0
    assert "no steps are left" in capsys.readouterr().out


@pytest.mark.realdata
def test_the_second_phase_begins_from_weights_that_were_given(
    small_data: Path, teacher_path: Path, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    given = EdgeDetector()
    save(given, tmp_path / "given.safetensors", steps=0, seed=4)
    start = ("--start", str(tmp_path / "given.safetensors"))
    out = tmp_path / "out.safetensors"
    assert run_detector(arguments(small_data, teacher_path, out, "--steps", "0", *start)) == 0
    same, wanted = load(out).state_dict(), load(tmp_path / "given.safetensors").state_dict()
    assert all(torch.equal(same[name], wanted[name]) for name in wanted)
    course = json.loads(out.with_suffix(".training.json").read_text(encoding="utf-8"))
    assert course["started_from"]["file"] == "given.safetensors"
    assert run_detector(arguments(small_data, teacher_path, out, "--steps", "2", *start)) == 0
    taught = load(out).state_dict()
    changed = {name.split(".")[0] for name in wanted if not torch.equal(taught[name], wanted[name])}
    assert changed == {"stem", "narrow", "stages", "necks", "heads"}, "the whole network learns"


def test_a_state_that_began_elsewhere_is_not_gone_on_with(tmp_path: Path) -> None:
    pools, state = Pools([], [], [], []), tmp_path / "run.state"
    for seed in (4, 5):
        torch.manual_seed(seed)
        save(EdgeDetector(), tmp_path / f"{seed}.safetensors", steps=0, seed=seed)

    def run(start: Path | None) -> Run:
        return Run(Recipe(), None, pools, state, start)  # type: ignore[arg-type]

    run(tmp_path / "4.safetensors")._save()
    assert run(tmp_path / "4.safetensors").started_from == run(None).started_from != {}
    with pytest.raises(InputError, match=r"did not begin from 5\.safetensors"):
        run(tmp_path / "5.safetensors")


def test_landmarks_of_a_network_in_training_are_measured_against_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.detect.decode import Candidates
    from training.detector import validate as module

    wanted = np.array([[[20, 20], [40, 20], [30, 30], [22, 40], [38, 40]]], np.float32)
    box, image = np.array([[10, 10, 50, 50]], np.float32), np.zeros((64, 64, 3), np.uint8)
    seen = Candidates(box, wanted + np.float32([3, 4]), np.ones(1, np.float32))
    monkeypatch.setattr(module, "_look", lambda *_: seen)
    network = EdgeDetector()
    line = module.landmark_error(network, [Picture(image, box, wanted), Picture(image, box, wanted * np.nan)])
    assert line == "landmarks 25.00 % of the eye distance from the labels of 1 faces"
    elsewhere = Picture(image, box + 100, wanted + 100)
    assert "of 0 faces" in module.landmark_error(network, [elsewhere])


@pytest.mark.parametrize(
    "option",
    [
        ("--size", "100"),
        ("--unit-steps", "0"),
        ("--bank", "0"),
        ("--batch", "1"),
        ("--crops-of-each", "0"),
        ("--threads", "0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors", *option))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rate", "-1"), ("--rate", "nan"), ("--validate-every", "0"), ("--loosened", "0"), ("--loosened", "1.5")],
)
def test_rates_and_steps_that_are_none_are_refused(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(InputError, match=option):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors", option, value))


def test_fewer_updates_than_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 leaves out phase 2"):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors", "--steps", "-1"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"yunet_s_dynamic\.onnx: cannot be read"):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors"))
    start = tmp_path / "none.safetensors"
    with pytest.raises(InputError, match=r"none\.safetensors: not a safetensors file"):
        run_detector(arguments(tmp_path, tmp_path / "t.onnx", tmp_path / "o.safetensors", "--start", str(start)))
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


@pytest.mark.parametrize("kind", ["text", "list", "nothing"])
def test_a_state_of_another_kind_ends_in_one_line(tmp_path: Path, kind: str) -> None:
    state = tmp_path / "run.state"
    if kind == "text":
        state.write_text("nothing of the kind")
    else:
        torch.save([1, 2] if kind == "list" else {}, state)
    with pytest.raises(InputError, match=r"not a state of this training; remove it to begin anew$"):
        Run(Recipe(), None, Pools([], [], [], []), state)  # type: ignore[arg-type]
