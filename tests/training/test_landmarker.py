"""Training the landmarker: what it is shown, and that it learns, resumes and is read back."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh import write_mesh

from edge.align import ARCFACE_112, WIDE_96, WIDE_96_SIZE
from edge.errors import ContractError, InputError
from training.detector.data import read_labels
from training.detector.network import EdgeDetector
from training.detector.network import save as save_detector
from training.landmarker.faces import ARCHIVES, PATCH_SIZE, PATCH_TEMPLATE, Faces, Patch, cut
from training.landmarker.network import EdgeLandmarker, load, save
from training.landmarker.run import Recipe, Run, configure_landmarker, held_out_errors, run_landmarker
from training.landmarker.samples import draw, misplace
from training.running import to_tensor

TEACHER = "yunet_n_dynamic.onnx"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def marked(landmarks: np.ndarray, size: int = PATCH_SIZE) -> Patch:
    """A grey patch with a coloured disc at each landmark: eyes red, nose green, mouth blue."""
    image = np.full((size, size, 3), 90, np.uint8)
    red, green, blue = (0, 0, 255), (0, 255, 0), (255, 0, 0)
    for (x, y), colour in zip(landmarks, (red, red, green, blue, blue), strict=True):
        cv2.circle(image, (round(x * 16), round(y * 16)), 5 * 16, colour, -1, cv2.LINE_AA, 4)
    return Patch(image, landmarks.astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_the_points_stay_on_what_they_mark(seed: int) -> None:
    """Shifted, turned, scaled, mirrored: the nose's label is in the middle of the green disc, the left eye's on red."""
    sample = misplace(np.random.default_rng(seed), marked(PATCH_TEMPLATE))
    assert sample.image.shape == (WIDE_96_SIZE, WIDE_96_SIZE, 3)
    blue, green, red = (sample.image[..., channel].astype(np.float64) for channel in range(3))
    grid = np.stack(np.mgrid[0:WIDE_96_SIZE, 0:WIDE_96_SIZE][::-1], axis=-1)
    weight = np.clip(green - np.maximum(blue, red), 0, None)
    if (np.abs(sample.points[2] - (WIDE_96_SIZE - 1) / 2) < 40).all():
        middle = (grid * weight[..., None]).sum(axis=(0, 1)) / weight.sum()
        assert np.linalg.norm(middle - sample.points[2]) < 0.5
    for point, colour, other in ((0, red, blue), (1, red, blue), (3, blue, red), (4, blue, red)):
        x, y = np.round(sample.points[point]).astype(int)
        if 0 <= x < WIDE_96_SIZE and 0 <= y < WIDE_96_SIZE:
            assert colour[y, x] > other[y, x] + 100
    # Left and right are those of the picture: eye, nose and eye turn the same way round whether mirrored or not.
    (x1, y1), (x2, y2) = sample.points[1] - sample.points[0], sample.points[2] - sample.points[0]
    assert x1 * y2 - y1 * x2 > 0


def test_what_is_seen_is_misplaced_as_detectors_misplace_it() -> None:
    """Off the template by some percent of the eye distance, unbiased; without noise the points lie on it."""
    patch = marked(PATCH_TEMPLATE)
    points = np.stack([draw(np.random.default_rng(seed), patch).points for seed in range(400)])
    eyes = np.linalg.norm(WIDE_96[1] - WIDE_96[0])
    away = np.linalg.norm(points - WIDE_96, axis=2).mean(axis=1) / eyes
    assert 0.08 < np.median(away) < 0.3
    across, down = (points - WIDE_96).mean(axis=(0, 1))
    # The template is not symmetric, and half of the samples are mirrored.
    lopsided = WIDE_96[:, 0].mean() - (WIDE_96_SIZE - 1) / 2
    assert abs(across + lopsided) < 0.6
    assert abs(down) < 0.6


def test_a_face_is_cut_out_with_its_landmarks() -> None:
    landmarks = (ARCFACE_112 * 1.7 + (60, 40)).astype(np.float32)
    image = np.zeros((300, 320, 3), np.uint8)
    cv2.circle(image, tuple(np.round(landmarks[2] * 16).astype(int)), 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    patch = cut(image, landmarks)
    np.testing.assert_allclose(patch.landmarks, PATCH_TEMPLATE, atol=0.01)
    grid = np.stack(np.mgrid[0:PATCH_SIZE, 0:PATCH_SIZE][::-1], axis=-1)
    weight = patch.image[..., 0].astype(np.float64)
    middle = (grid * weight[..., None]).sum(axis=(0, 1)) / weight.sum()
    np.testing.assert_allclose(middle, PATCH_TEMPLATE[2], atol=0.3)


def faces(count: int = 6) -> Faces:
    """Patches whose discs lie off the template, each elsewhere."""
    rng = np.random.default_rng(0)
    patches = [marked(PATCH_TEMPLATE + rng.normal(0, 4, (5, 2))) for _ in range(count)]
    return Faces(patches, patches[:2])


def test_it_learns_to_see_where_the_points_are(tmp_path: Path) -> None:
    recipe = Recipe(steps=60, batch=16, warm_up=5, average=0.9)
    untaught = np.median(held_out_errors(EdgeLandmarker().eval(), faces().held_out))
    run = Run(recipe, faces(), tmp_path / "run.state")
    run.train(validate_every=60)
    assert np.median(held_out_errors(run.averaged, faces().held_out)) < 0.6 * untaught


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = Run(Recipe(steps=6, batch=2), faces(), tmp_path / "whole.state")
    whole.train(validate_every=100)
    part = Run(Recipe(steps=6, batch=2), faces(), tmp_path / "part.state")
    for _ in range(3):
        part._update()
    part._save()
    resumed = Run(Recipe(steps=6, batch=2), faces(), tmp_path / "part.state")
    assert resumed.step == 3
    resumed.train(validate_every=100)
    for one, other in zip(whole.averaged.state_dict().values(), resumed.averaged.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    for other, said in ((Recipe(steps=6, batch=2, seed=2), "seed 1, not 2"), (Recipe(steps=6), "batch 2, not 64")):
        with pytest.raises(InputError, match=said):
            Run(other, faces(), tmp_path / "part.state")
    torch.save([1, 2], tmp_path / "part.state")
    with pytest.raises(InputError, match="not a state"):
        Run(Recipe(steps=6, batch=2), faces(), tmp_path / "part.state")
    (tmp_path / "part.state").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a state"):
        Run(Recipe(steps=6, batch=2), faces(), tmp_path / "part.state")


def test_what_it_will_take_is_said_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(steps: int) -> Run:
        return Run(Recipe(steps=steps, batch=2), faces(), tmp_path / "run.state")

    run(2).train(validate_every=2)
    first, held_out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"takes about \d+ s: 2 steps of 0\.\d\d s, 2 samples each", first)
    assert held_out.startswith("step 2 held out")
    assert run(2).plan() == "no steps are left"
    assert re.fullmatch(r"takes about \d+ min: 99998 steps of 0\.\d\d s, 2 samples each", run(100_000).plan())


def test_timing_steps_changes_nothing_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taught(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        run = Run(Recipe(steps=4, batch=2), faces(), tmp_path / name)
        run.train(validate_every=100)
        return {**run.network.state_dict(), **{f"averaged {k}": v for k, v in run.averaged.state_dict().items()}}, (
            torch.get_rng_state()
        )

    timed, after_timed = taught("timed.state")
    monkeypatch.setattr(Run, "plan", lambda self: "")
    untimed, after_untimed = taught("untimed.state")
    assert all(torch.equal(timed[name], untimed[name]) for name in untimed)
    assert torch.equal(after_timed, after_untimed)


def test_weights_are_read_back_folded_and_give_the_same(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = EdgeLandmarker()
    pixels = to_tensor([draw(np.random.default_rng(seed), marked(PATCH_TEMPLATE)).image for seed in range(8)])
    network.train()
    for _ in range(3):  # BatchNorm gets statistics worth folding
        network(pixels)
    network.eval()
    save(network, tmp_path / "a.safetensors", steps=3, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "a.safetensors")(pixels), network(pixels))
    assert sum(p.numel() for p in network.parameters()) < 100_000
    save_detector(EdgeDetector(), tmp_path / "b.safetensors", steps=0, seed=0)
    with pytest.raises(ContractError, match="a landmarker edge-landmarker-1 are needed"):
        load(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [(("--steps", "0"), "--steps"), (("--batch", "1"), "--batch is 2"), (("--rate", "0"), "--rate 0")],
)
def test_unfit_arguments_end_in_one_line(tmp_path: Path, words: tuple[str, str], wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        run_landmarker(arguments(tmp_path, tmp_path / TEACHER, tmp_path / "mesh", tmp_path / "out", *words))


def arguments(data: Path, teacher: Path, mesh: Path, out: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure_landmarker(parser)
    named = {"--data": data, "--teacher": teacher, "--mesh": mesh, "--out": out}
    return parser.parse_args([*(word for name, path in named.items() for word in (name, str(path))), *more])


@pytest.mark.realdata
def test_the_command_labels_trains_and_writes_weights_with_their_story(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, root = shared_data / "data", tmp_path / "data"
    (root / "wider" / "train").mkdir(parents=True)
    lines = []
    for name, boxes in read_labels(source / "wider" / "train" / "labels.txt")[:4]:
        (root / "wider" / "train" / name).symlink_to(source / "wider" / "train" / name)
        lines += [f"# {name} 0 0", *(" ".join(f"{v:.1f}" for v in box) for box in boxes)]
    (root / "wider" / "train" / "labels.txt").write_text("\n".join(lines) + "\n")
    for name in ("scenes/celeba.zip", *(f"train/{archive}" for archive in ARCHIVES)):
        (root / name).parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(source / name) as full, zipfile.ZipFile(root / name, "w") as small:
            for entry in [name for name in full.namelist() if name.endswith(".jpg")][:3]:
                small.writestr(entry, full.read(entry))
    mesh, out = write_mesh(tmp_path / "mesh.onnx", spread=3.0), tmp_path / "out" / "small.safetensors"
    args = arguments(root, shared_data / "models" / TEACHER, mesh, out, "--steps", "2", "--batch", "2")
    assert run_landmarker(args) == 0
    assert "faces to learn from" in capsys.readouterr().out
    load(out)
    story = json.loads(out.with_suffix(".training.json").read_text())
    assert story["recipe"]["steps"] == 2
    assert "face mesh" in story["data"]
    assert out.with_suffix(".labels.npz").is_file()
