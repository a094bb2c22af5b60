from __future__ import annotations

import numpy as np
import pytest

from benchmarks.statistics import identity_weights
from benchmarks.tar import pair_tail, tar_draws, tar_interval
from edge.metrics.scores import all_pair_scores
from edge.metrics.verification import tar_at_far
from edge.types import Floats


def people(identities: int, pictures: int, noise: float, seed: int) -> tuple[Floats, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(identities, 32))
    rows = np.repeat(centres, pictures, axis=0) + noise * random.normal(size=(identities * pictures, 32))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), np.repeat(
        np.arange(identities), pictures
    )


def test_a_draw_is_the_tar_of_the_set_it_draws() -> None:
    embeddings, labels = people(40, 4, 0.8, 0)
    tail = pair_tail(embeddings, labels, 0.05)
    draws = tar_draws(tail, (0.01, 0.05), seed=3, resamples=4)
    for weight, got in zip(identity_weights(40, 4, seed=3), draws, strict=True):
        # The same draw written out: pairs as often as their people were drawn, copies of one person never compared.
        genuine, impostor = [], []
        scores = embeddings @ embeddings.T
        for i in range(160):
            for j in range(i + 1, 160):
                a, b = labels[i], labels[j]
                target, times = (genuine, weight[a]) if a == b else (impostor, weight[a] * weight[b])
                target.extend([scores[i, j]] * times)
        for far, value in zip((0.01, 0.05), got, strict=True):
            expected = tar_at_far(np.array(genuine), np.array(impostor), far).tar
            assert expected is not None
            assert value == pytest.approx(expected.value, abs=2 / len(genuine))


def test_undrawn_identities_give_the_plain_figure() -> None:
    embeddings, labels = people(60, 5, 0.8, 1)
    tail = pair_tail(embeddings, labels, 0.01)
    pairs = all_pair_scores(embeddings, labels)
    plain = tar_at_far(pairs.genuine, pairs.impostor, 0.01).tar
    assert plain is not None
    interval = tar_interval(plain.value, tar_draws(tail, (0.01,), resamples=200)[:, 0])
    assert interval is not None
    assert interval.low < plain.value < interval.high
    # Pairs of one picture depend on each other: identities give more doubt than pairs taken as independent.
    assert interval.high - interval.low > plain.high - plain.low


def test_a_draw_whose_threshold_lies_below_the_tail_is_not_made_up() -> None:
    embeddings, labels = people(30, 4, 0.8, 2)
    draws = tar_draws(pair_tail(embeddings, labels, 1e-4), (1e-3, 0.9), resamples=50)
    assert np.isfinite(draws[:, 0]).all()
    assert np.isnan(draws[:, 1]).all()
    assert tar_interval(0.5, draws[:, 1]) is None
