"""Distillation as a run: it learns, it may be killed, it ends with weights that load."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge.errors import InputError
from edge.weights.cards import read_card
from training.checkpoint import load_embedder
from training.distill import run
from training.distill.blocks import chain_features
from training.distill.cli import configure_distill, run_distill
from training.distill.crops import SIZE, CropStore
from training.distill.feed import make_batch
from training.distill.losses import relative_error
from training.distill.recipe import GENTLY, Recipe
from training.distill.run import BLOCKS, DONE, WHOLE, Distiller, to_student
from training.distill.start import fit_stage_scales
from training.distill.teacher import Answer, Teacher
from training.mobilefacenet import MobileFaceNet
from training.teaching import measure_statistics

TEACHER_SIZE = 16
QUICK = Recipe(batch=4, bank=32, block_steps=1, steps=3, warmup=1, hold_out=3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread_and_one_batch() -> Iterator[None]:
    """The first batch has every picture that is trained on, and ten of them would hold nothing but the same again."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "MEASURED_BATCHES", 1)
        yield


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve smooth pictures of six people."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for person in range(6):
        (folder / f"person{person}").mkdir()
        for shot in range(2):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"person{person}" / f"{shot}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def crops(faces: Path) -> CropStore:
    return CropStore.open([faces])


def _teacher(pixels: torch.Tensor) -> Answer:
    """A network of random weights with the teacher's shapes."""
    with torch.no_grad():
        return Answer(*chain_features(_NETWORK, to_student(pixels)))


def _settled(network: MobileFaceNet) -> MobileFaceNet:
    """Statistics that keep random weights' activations from dying out on their way."""
    measure_statistics(network, [torch.rand(8, 3, SIZE, SIZE) * 2 - 1])
    return network.eval()


torch.manual_seed(11)
_NETWORK = _settled(MobileFaceNet(TEACHER_SIZE))


def _distiller(crops: CropStore, recipe: Recipe = QUICK, seed: int = 0) -> Distiller:
    torch.manual_seed(seed)
    return Distiller(MobileFaceNet(32), _teacher, TEACHER_SIZE, crops, recipe)


def _whole(crops: CropStore) -> Distiller:
    """At the beginning of the second phase."""
    distiller = _distiller(crops)
    distiller._start_phase(WHOLE)
    return distiller


def _weights(distiller: Distiller) -> list[torch.Tensor]:
    return [value.clone() for value in distiller.student.state_dict().values()]


class _StopError(Exception):
    pass


def test_the_loss_on_one_batch_falls(crops: CropStore) -> None:
    distiller = _distiller(crops, replace(QUICK, workers=1, steps=100, lr=3e-4))
    pixels = make_batch(crops, list(range(6)), None)
    measure_statistics(distiller.student, [to_student(pixels)])
    answer = _teacher(pixels)
    distiller.teacher = lambda _: answer
    distiller._start_phase(WHOLE)
    losses = [distiller.train_step(pixels)["loss"] for _ in range(18)]
    assert np.mean(losses[-2:]) < 0.8 * losses[0]


def test_a_run_goes_through_both_phases(crops: CropStore) -> None:
    seen: list[tuple[str, int]] = []
    distiller = _distiller(crops)
    distiller.run(lambda state, parts: seen.append((state.phase, state.step)))
    assert seen == [(BLOCKS, block) for block in range(1, 19)] + [(WHOLE, 1), (WHOLE, 2), (WHOLE, 3)]
    assert distiller.phase == DONE
    assert not distiller.student.training


@pytest.fixture(scope="module")
def straight(crops: CropStore) -> list[torch.Tensor]:
    """Weights of a run that was not stopped."""
    distiller = _distiller(crops)
    distiller.run()
    return _weights(distiller)


@pytest.mark.parametrize("stop_at", [(BLOCKS, 7), (WHOLE, 1)])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(
    crops: CropStore, straight: list[torch.Tensor], tmp_path: Path, stop_at: tuple[str, int]
) -> None:
    def stop(state: Distiller, _: dict[str, float]) -> None:
        if (state.phase, state.step) == stop_at:
            state.save(tmp_path / "state.pt")
            raise _StopError

    with pytest.raises(_StopError):
        _distiller(crops).run(stop)
    resumed = _distiller(crops, seed=99)
    resumed.load(tmp_path / "state.pt")
    assert (resumed.phase, resumed.step) == stop_at
    resumed.run()
    assert all(torch.equal(a, b) for a, b in zip(straight, _weights(resumed), strict=True))


def test_state_of_another_seed_is_refused_and_a_shorter_tail_is_not(crops: CropStore, tmp_path: Path) -> None:
    _distiller(crops).save(tmp_path / "state.pt")
    with pytest.raises(InputError, match="other values of seed"):
        _distiller(crops, replace(QUICK, seed=1)).load(tmp_path / "state.pt")
    shorter = _distiller(crops, replace(QUICK, steps=2))
    shorter.load(tmp_path / "state.pt")
    assert shorter.recipe.steps == 2


def test_a_finished_run_can_be_given_more_steps(crops: CropStore, tmp_path: Path) -> None:
    finished = _whole(crops)
    finished.run()
    finished.save(tmp_path / "state.pt")
    same = _distiller(crops)
    same.load(tmp_path / "state.pt")
    assert same.phase == DONE
    longer = _distiller(crops, replace(QUICK, steps=5))
    longer.load(tmp_path / "state.pt")
    assert (longer.phase, longer.step) == (WHOLE, 3)
    before = _weights(longer)
    averaged = longer.smoothed().state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, averaged, strict=True)), "the average is of the same scales"
    longer.run()
    assert longer.step == 5
    assert not all(torch.equal(a, b) for a, b in zip(before, _weights(longer), strict=True))


def test_what_is_shipped_is_centred_and_equalised_and_what_goes_on_is_not(crops: CropStore) -> None:
    """An equalised student's stages have lost the teacher's scale: more steps would only learn it anew."""
    finished = _whole(crops)
    finished.run()
    before = _weights(finished)
    shipped = finished.finished()
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(finished), strict=True))
    pixels = next(iter(finished.augmented()))
    with torch.no_grad():
        moved = shipped.features(pixels) - finished.student.eval().features(pixels)
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=1e-4, atol=1e-4)
        mean = shipped.features(to_student(make_batch(crops, finished.training_crops, None))).mean(dim=0)
        assert float(mean.norm()) < 0.05 * float(moved[0].norm())
        own, other = (chain_features(network, pixels)[0]["conv_6_sep"] for network in (finished.student, shipped))
    reach, equal = (float(_reach(maps).max() / _reach(maps).median()) for maps in (own, other))
    assert equal < reach


def _like_teacher(crops: CropStore, recipe: Recipe = QUICK) -> Distiller:
    """Trains a network of the teacher's own size to give the teacher's embedding as it is."""
    distiller = Distiller(MobileFaceNet(TEACHER_SIZE), _teacher, TEACHER_SIZE, crops, recipe)
    distiller._map = torch.eye(TEACHER_SIZE)
    return distiller


def test_a_second_phase_begins_from_shipped_weights_with_the_teachers_scales(crops: CropStore, tmp_path: Path) -> None:
    perfect = _like_teacher(crops)
    perfect.student.load_state_dict(_NETWORK.state_dict())
    perfect._start_phase(WHOLE)
    shipped = perfect.finished()
    begun = _like_teacher(crops, replace(QUICK, start="a" * 64, bf16=True))
    begun.begin_from(shipped)
    assert (begun.phase, begun.step) == (WHOLE, 0)
    pixels = make_batch(crops, [0, 1], None)
    with torch.no_grad():
        x, taught = to_student(pixels), _teacher(pixels).blocks
        cosines = [float((network(x) * _NETWORK(x)).sum(dim=1).min()) for network in (shipped, begun.student)]
        assert cosines[0] < 0.9 < 0.995 < cosines[1], "the mean is the teacher's again"
        for stage in ("conv_6_sep", "conv_6_dw"):
            own, equal = (
                float(relative_error(chain_features(network, x)[0][stage], taught[stage]))
                for network in (begun.student, shipped)
            )
            assert own < 1e-4 < equal, stage
    assert begun.train_step(make_batch(crops, [0, 1, 2, 3], None))["embedding"] < 0.05, "in bfloat16"
    begun.save(tmp_path / "state.pt")
    with pytest.raises(InputError, match="start"):
        _like_teacher(crops).load(tmp_path / "state.pt")


def test_a_channel_that_the_teacher_does_not_use_keeps_its_scale() -> None:
    """Its factor would be nearly 0 and the next layer's weight huge: the first update would break the network."""
    student = copy.deepcopy(_NETWORK)
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        taught = {name: maps.clone() for name, maps in chain_features(student, x)[0].items()}
    taught["conv_6_dw"][:, 7] *= 1e-9
    taught["conv_6_dw"][:, 8] *= -1
    taught["conv_6_dw"][:, 9] *= 2
    before = student.linear.weight.detach().clone()
    fit_stage_scales(student, [(x, Answer(taught, torch.zeros(2, TEACHER_SIZE)))])
    factors = (before / student.linear.weight.detach()).median(dim=0).values
    assert factors[7:10].tolist() == pytest.approx([1, 1, 2], rel=1e-3)


@torch.no_grad()
def test_a_silent_channel_that_was_blown_up_is_brought_back() -> None:
    """Where it speaks for once, its error would drown the gradient of all others."""
    student = copy.deepcopy(_NETWORK)
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    producer = student.conv_6_sep
    usual = producer.bn.weight[7].clone()
    producer.bn.weight[7] *= 1e5
    producer.bn.bias[7] = -1e9
    taught = {name: maps.clone() for name, maps in chain_features(student, x)[0].items()}
    answer = student(x)
    fit_stage_scales(student, [(x, Answer(taught, torch.zeros(2, TEACHER_SIZE)))])
    assert 1 / 32 < float(producer.bn.weight[7] / usual) < 32
    torch.testing.assert_close(student(x), answer, rtol=1e-3, atol=1e-4)


def test_weights_of_another_seed_or_form_are_nothing_to_begin_from(crops: CropStore) -> None:
    other = _like_teacher(crops)
    other._map = -torch.eye(TEACHER_SIZE)  # as another seed would have lifted it
    with pytest.raises(InputError, match="same --seed"):
        other.begin_from(_NETWORK)
    with pytest.raises(InputError, match="16-d with relu, where this run trains 32-d"):
        _distiller(crops).begin_from(_NETWORK)


def _reach(maps: torch.Tensor) -> torch.Tensor:
    """The largest value of each channel that is not silent."""
    found = maps.amax(dim=(0, 2, 3))
    return found[found > 1e-3 * found.max()]


def test_timing_a_step_leaves_no_trace(crops: CropStore) -> None:
    timed, other = _whole(crops), _whole(crops)
    assert timed.crops_per_second() > 0.0
    assert all(torch.equal(a, b) for a, b in zip(_weights(timed), _weights(other), strict=True))
    timed.run()
    other.run()
    assert all(torch.equal(a, b) for a, b in zip(_weights(timed), _weights(other), strict=True))


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(steps=100, warmup=10, lr=1e-2)
    rates = [recipe.learning_rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == rates[10] == pytest.approx(1e-2)
    assert rates[55] == pytest.approx(5e-3)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_crops_are_spoilt_less_in_the_last_share_of_the_second_phase(
    crops: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []

    def make_batch_and_tell(store: CropStore, indices: list[int], rng: object, spoil: float) -> torch.Tensor:
        told.append(spoil)
        return make_batch(store, indices, None)

    monkeypatch.setattr("training.distill.feed.make_batch", make_batch_and_tell)
    distiller = _distiller(crops, replace(QUICK, steps=4, gentle=0.5))
    distiller._start_phase(WHOLE)
    distiller.run()
    assert told == [1.0, 1.0, GENTLY, GENTLY]


def test_a_student_that_is_the_teacher_agrees_wholly(crops: CropStore) -> None:
    distiller = _like_teacher(crops, Recipe(batch=4, hold_out=3))
    distiller.student.load_state_dict(_NETWORK.state_dict())
    distiller._start_phase(WHOLE)
    agreement = distiller.agreement()
    assert agreement.crops == len(distiller.held_out) > 1
    assert agreement.cosine == pytest.approx(1.0, abs=1e-5)
    assert agreement.pairs == pytest.approx(0.0, abs=1e-5)
    other = _distiller(crops).agreement()
    assert other.cosine < 0.9
    assert math.isfinite(other.pairs)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    teacher = Teacher().train()
    for _ in range(20):
        teacher(torch.rand(2, 3, SIZE, SIZE) * 255)  # BatchNorm learns what random weights give
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(teacher.state_dict(), path)
    return path


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure_distill(parser)
    return parser.parse_args(arguments)


def _words(faces: Path, teacher_file: Path, folder: Path) -> list[str]:
    """What the command needs for a short run that works and writes below `folder`."""
    return [
        *("--teacher", str(teacher_file), "--crops", str(faces), "--work", str(folder / "work")),
        *("--output", str(folder / "out" / "student.safetensors"), "--embedding-size", "128"),
        *("--bank", "32", "--block-steps", "1", "--steps", "2", "--batch", "4", "--hold-out", "3"),
    ]


@pytest.fixture(scope="module")
def trained(faces: Path, teacher_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped, with --stages 0.5."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_distill(_parse([*_words(faces, teacher_file, folder), "--stages", "0.5"])) == 0
    return folder


class TestCommand:
    @pytest.fixture
    def arguments(self, faces: Path, teacher_file: Path, tmp_path: Path) -> list[str]:
        return _words(faces, teacher_file, tmp_path)

    def test_it_trains_writes_weights_and_knows_when_it_is_done(
        self, faces: Path, teacher_file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
        student, info = load_embedder(tmp_path / "out" / "student.safetensors")
        assert (info.activation, info.embedding_size, info.color) == ("relu", 128, "rgb")
        with torch.no_grad():
            assert torch.isfinite(student(torch.zeros(1, 3, SIZE, SIZE))).all()
        written = (tmp_path / "out" / "student.safetensors").read_bytes()
        card = read_card(tmp_path / "out" / "student.card.json")
        assert card.fault() is None
        assert "12 aligned face crops" in card.data
        assert card.figures[0].value is not None
        told = json.loads((tmp_path / "out" / "student.card.json").read_text(encoding="utf-8"))
        assert told["recipe"]["weights"]["stages"] == 0.5
        assert told["command"].split()[0] == "edge"
        assert str(trained) not in told["command"]
        log = (tmp_path / "work" / "log.txt").read_text(encoding="utf-8")
        assert "whole 2/2" in log
        assert "54 crops to go" in log, "32 of the bank, 14 through the blocks, 8 through the network"
        assert "blocks 18/18 error" in log
        assert "crops/s" in log
        capsys.readouterr()
        assert run_distill(_parse(_words(faces, teacher_file, tmp_path))) == 0
        assert "done, step 2 of 2" in capsys.readouterr().out
        assert (tmp_path / "out" / "student.safetensors").read_bytes() == written

    @pytest.mark.parametrize(
        ("more", "wrong"),
        [
            (["--batch", "5"], "--batch 5 --workers 2"),
            (["--batch", "2"], "two crops or more"),
            (["--steps", "0"], "at least 1"),
            (["--stages", "-1"], "--stages -1.0: a weight is 0 or more"),
            (["--stages", "nan"], "--stages nan"),
            (["--gentle", "2"], "--gentle 2.0: a share lies in 0..1"),
            (["--gentle", "nan"], "--gentle nan"),
            (["--lr", "-1"], "--lr -1.0: a learning rate lies above 0"),
            (["--work", __file__], "is a file; --work names a folder"),
            (["--teacher", __file__], "not the weights of foamliu's MobileFaceNet"),
            (["--pairs", "pairs.txt"], "--pairs is a list"),
            (["--crops", "nothing.zip"], "nothing.zip"),
            (["--teacher", "nothing.pt"], "nothing.pt"),
            (["--from", "nothing.safetensors"], "nothing.safetensors"),
        ],
    )
    def test_mistakes_are_named_in_one_line(self, arguments: list[str], more: list[str], wrong: str) -> None:
        with pytest.raises(InputError) as caught:
            run_distill(_parse([*arguments, *more]))
        assert wrong in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.realdata
    def test_the_card_measures_student_and_teacher_on_pairs(
        self, arguments: list[str], tmp_path: Path, shared_data: Path
    ) -> None:
        names = sorted(
            folder.name
            for folder in (shared_data / "data" / "lfw" / "images").iterdir()
            if len(list(folder.iterdir())) > 1
        )[:4]
        lines = ["2\t1"]
        for one, other in (names[:2], names[2:]):
            lines += [f"{one}\t1\t2", f"{one}\t1\t{other}\t1"]
        (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        arguments += ["--pairs", str(tmp_path / "pairs.txt"), "--images", str(shared_data / "data" / "lfw" / "images")]
        for detector in ("yunet_n_dynamic", "yunet_s_dynamic"):
            arguments += ["--detector", str(shared_data / "models" / f"{detector}.onnx")]
        assert run_distill(_parse(arguments)) == 0
        figures = {figure.what: figure for figure in read_card(tmp_path / "out" / "student.card.json").figures}
        own = figures["verification accuracy"]
        assert (own.count, own.target, own.met) == (4, "at least 99 %", own.value >= 99)
        assert "through yunet_n_dynamic:" in own.on
        assert figures["verification accuracy of the teacher (MobileFaceNet of foamliu, asked both ways)"].count == 4
        other = figures["verification accuracy, faces found by yunet_s_dynamic"]
        assert (other.count, other.target) == (4, "")
        assert figures["TAR at FAR 0.001"].value is None
        assert "too few impostor pairs" in figures["TAR at FAR 0.001"].on

    @pytest.mark.slow
    def test_killed_at_any_moment_it_goes_on_to_the_same_weights(
        self, arguments: list[str], trained: Path, tmp_path: Path, repository: Path
    ) -> None:
        arguments += ["--stages", "0.5", "--save-every", "0"]
        straight = (trained / "out" / "student.safetensors").read_bytes()
        code = (
            "import argparse; from training.distill.cli import *; p = argparse.ArgumentParser(); configure_distill(p);"
            f"run_distill(p.parse_args({arguments!r}))"
        )
        checkpoint = tmp_path / "work" / "checkpoint.pt"
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        patience = time.monotonic() + 120
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < patience:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert checkpoint.exists()
        assert run_distill(_parse(arguments)) == 0
        assert (tmp_path / "out" / "student.safetensors").read_bytes() == straight
