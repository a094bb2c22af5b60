from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from training.margins import MarginHead, arcface_logits, cosface_logits

angles = st.floats(0.0, math.pi)


@settings(deadline=None)
@given(theta=angles, other=angles, margin=st.floats(0.0, 1.5), scale=st.floats(1.0, 64.0))
def test_arcface_is_the_cosine_of_the_widened_angle(theta: float, other: float, margin: float, scale: float) -> None:
    cosines = torch.tensor([[math.cos(theta), math.cos(other)]], dtype=torch.float64)
    logits = arcface_logits(cosines, torch.tensor([0]), margin=margin, scale=scale)
    assert logits[0, 1].item() == pytest.approx(scale * math.cos(other))
    if theta + margin < math.pi - 1e-3:
        # The guard on the square root costs at most √1e-7·sin(margin).
        assert logits[0, 0].item() == pytest.approx(scale * math.cos(theta + margin), abs=scale * 3.2e-4)


@given(theta=angles, margin=st.floats(0.0, 0.9), scale=st.floats(1.0, 64.0))
def test_cosface_takes_the_margin_off_the_cosine(theta: float, margin: float, scale: float) -> None:
    cosines = torch.tensor([[0.1, math.cos(theta)]], dtype=torch.float64)
    logits = cosface_logits(cosines, torch.tensor([1]), margin=margin, scale=scale)
    assert logits.tolist()[0] == pytest.approx([scale * 0.1, scale * (math.cos(theta) - margin)])


def test_arcface_falls_all_the_way_from_0_to_pi() -> None:
    theta = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    labels = torch.zeros(len(theta), dtype=torch.long)
    logits = arcface_logits(theta.cos()[:, None], labels, margin=0.5, scale=1.0)[:, 0]
    assert (logits.diff() < 0).all()


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@pytest.mark.parametrize("place", ["on the axis", "opposite", "at random"])
def test_gradient_is_finite_and_turns_the_embedding_to_its_class(kind: str, place: str) -> None:
    torch.manual_seed(0)
    head = MarginHead(16, 3, kind=kind)  # type: ignore[arg-type]
    axis = F.normalize(head.kernel.detach(), dim=0)[:, 1]
    start = {"on the axis": axis, "opposite": -axis, "at random": torch.randn(16)}[place].clone()[None]
    embedding = start.requires_grad_()
    loss = F.cross_entropy(head(embedding, torch.tensor([1])), torch.tensor([1]))
    loss.backward()
    assert embedding.grad is not None
    assert head.kernel.grad is not None
    assert torch.isfinite(embedding.grad).all()
    assert torch.isfinite(head.kernel.grad).all()
    if place == "at random":
        step = embedding.detach() - 0.05 * F.normalize(embedding.grad, dim=1)
        before, after = (F.normalize(x.detach(), dim=1) @ axis for x in (embedding, step))
        assert after.item() > before.item()


def test_a_margin_makes_the_loss_larger_and_none_leaves_plain_softmax() -> None:
    torch.manual_seed(1)
    embeddings, labels = torch.randn(20, 8), torch.arange(20) % 4
    head = MarginHead(8, 4, margin=0.0, scale=16.0)
    plain = F.cross_entropy(16.0 * head.cosines(embeddings), labels)
    assert F.cross_entropy(head(embeddings, labels), labels).item() == pytest.approx(plain.item(), rel=1e-5)
    head.margin = 0.3
    assert F.cross_entropy(head(embeddings, labels), labels) > plain


def test_imprinting_puts_each_axis_at_the_mean_of_its_class() -> None:
    torch.manual_seed(2)
    centres = F.normalize(torch.randn(3, 32), dim=1)
    labels = torch.arange(30) % 3
    embeddings = centres[labels] + 0.05 * torch.randn(30, 32)
    head = MarginHead(32, 3)
    head.imprint(embeddings, labels)
    assert (head.cosines(centres).diagonal() > 0.98).all()
    assert (head.cosines(embeddings).argmax(1) == labels).all()


def test_a_head_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        MarginHead(8, 1)
