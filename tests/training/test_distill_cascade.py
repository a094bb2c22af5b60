"""Blocks taught one after the other, and the optimizer they learn with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.distill.blocks import chain_features, run_frozen, student_blocks
from training.distill.cascade import HEAD, STEPS, Bank, advance, fill_bank, learn_block, lesson_of
from training.distill.losses import relative_error
from training.mobilefacenet import MobileFaceNet
from training.muon import Muon, is_matrix, orthogonalised
from training.teaching import Lesson, measure_statistics

CROPS = 32


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Noise, and what a network of random weights makes of it."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    teacher = MobileFaceNet(32)
    inputs = torch.rand(CROPS, 3, 112, 112) * 2 - 1
    measure_statistics(teacher, [inputs])
    teacher.eval()

    @torch.no_grad()
    def answer(x: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        blocks, embedding = chain_features(teacher, x, run_frozen)
        return x, blocks, normalize(embedding, dim=1)

    return fill_bank(CROPS, iter(inputs.split(8)), answer)


def _student() -> MobileFaceNet:
    torch.manual_seed(4)
    return MobileFaceNet(32).eval()


def test_a_bank_holds_every_crop_and_answer(bank: Bank) -> None:
    assert len(bank) == CROPS
    assert bank.blocks["conv_3.3"].shape == (CROPS, 64, 28, 28)
    assert bank.blocks["conv_6_dw"].dtype == torch.float16
    assert bank.targets.norm(dim=1).allclose(torch.ones(CROPS))
    with pytest.raises(ValueError, match="0 crops came, 4"):
        fill_bank(4, iter([]), lambda x: (x, {}, x))


@pytest.mark.parametrize("name", ["conv_4.0", "conv_5.1", "conv_6_dw", HEAD])
def test_a_block_comes_near_the_teachers(bank: Bank, name: str) -> None:
    student = _student()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    place = STEPS.index(name)
    features = bank.blocks[STEPS[place - 1]] if place else bank.inputs
    first, last = (
        learn_block(student, name, features, bank, Lesson(steps, 16), np.random.default_rng(0)) for steps in (1, 80)
    )
    assert last < 0.6 * first
    inside = ("linear.", "bn.") if name == HEAD else tuple(f"{part}." for part in _parts(name))
    changed = {key for key, value in student.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith(inside) for key in changed), "only the block that was taught"
    assert not any(module.training for module in student.modules())


def _parts(name: str) -> tuple[str, ...]:
    group, _, index = name.partition(".")
    return ("conv1", "conv2_dw", "conv_23") if name == "conv_23" else (f"{group}.model.{index}" if index else group,)


def test_every_block_has_a_lesson_and_as_many_samples_a_step() -> None:
    lessons = {name: lesson_of(name, 100, 1e-2) for name in STEPS}
    assert lessons["conv_23"].steps == 3 * lessons["conv_4.3"].steps == 300
    assert [lessons[name].batch for name in ("conv_23", "conv_3.2", "conv_4.0", "conv_5.1")] == [4, 4, 8, 16]
    assert lessons["conv_6_dw"].batch == lessons[HEAD].batch == 64


def test_what_is_measured_after_learning_is_what_runs_later(bank: Bank) -> None:
    """The error with BatchNorm held is that of learning: no surprise when the blocks are put together."""
    student = _student()
    error = learn_block(student, "conv_23", bank.inputs, bank, Lesson(25, 16), np.random.default_rng(0))
    features = advance(student, "conv_23", bank.inputs)
    held = float(relative_error(features.float(), bank.blocks["conv_23"].float()))
    assert held == pytest.approx(error, rel=0.25)


def test_advancing_through_all_blocks_is_the_network(bank: Bank) -> None:
    student = _student()
    measure_statistics(student, [bank.inputs.float()])
    features = bank.inputs
    for name, _ in student_blocks(student):
        features = advance(student, name, features)
    with torch.no_grad():
        expected = chain_features(student, bank.inputs.float())[0]["conv_6_dw"]
    assert float(relative_error(features.float(), expected)) < 1e-4, "float16 between the blocks"


def test_learning_is_a_function_of_its_seed(bank: Bank) -> None:
    def once(seed: int) -> Tensor:
        student = _student()
        learn_block(student, HEAD, bank.blocks["conv_6_dw"], bank, Lesson(3, 16), np.random.default_rng(seed))
        return student.linear.weight.detach().clone()

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


class TestMuon:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 10_000), st.floats(1e-4, 1e4))
    def test_all_directions_get_about_the_same_length(self, rows: int, columns: int, seed: int, scale: float) -> None:
        matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        strong = s > 0.05 * s.max()  # the iteration cannot lift what is nearly nothing
        reached = torch.diagonal(u.T @ orthogonalised(matrix) @ vt.T)
        assert ((reached > 0.4) & (reached < 1.3))[strong].all()

    def test_depthwise_weights_scales_and_shifts_are_no_matrices(self) -> None:
        network = MobileFaceNet(32)
        assert is_matrix(network.conv_23.project.conv.weight)
        assert is_matrix(network.linear.weight)
        assert not is_matrix(network.conv2_dw.conv.weight)
        assert not is_matrix(network.conv_6_dw.conv.weight)
        assert not is_matrix(network.bn.weight)

    @staticmethod
    def _problem() -> tuple[nn.Module, Callable[[], Tensor]]:
        torch.manual_seed(0)
        x = torch.randn(64, 8, 4, 4) * torch.logspace(-1.5, 0, 8).view(1, 8, 1, 1)
        target = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8))(x).detach()
        network = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
        return network, lambda: relative_error(network(x), target)

    @pytest.mark.parametrize("shape", [(64, 8), (8, 64), (32, 32)])
    def test_its_update_is_as_large_for_every_shape(self, shape: tuple[int, int]) -> None:
        torch.manual_seed(0)
        weight = torch.zeros(shape, requires_grad=True)
        weight.grad = torch.randn(shape)
        Muon([weight, torch.zeros(1)]).step(0.1)
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.1, rel=0.2)

    def test_it_descends(self) -> None:
        network, loss = self._problem()
        optimizer = Muon(network.parameters())
        begin = float(loss().detach())
        for step in range(120):
            network.zero_grad()
            loss().backward()
            optimizer.step(2e-2 * (1 - step / 120))
        assert float(loss().detach()) < 0.1 * begin

    def test_it_goes_on_from_its_state(self) -> None:
        def run(optimizer: Muon, network: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
            for _ in range(steps):
                network.zero_grad()
                loss().backward()
                optimizer.step(1e-2)

        straight, loss = self._problem()
        run(Muon(straight.parameters()), straight, loss, 6)
        halves, loss = self._problem()
        first = Muon(halves.parameters())
        run(first, halves, loss, 3)
        second = Muon(halves.parameters())
        second.load_state_dict(first.state_dict())
        run(second, halves, loss, 3)
        assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), halves.parameters(), strict=True))
