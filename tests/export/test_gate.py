from __future__ import annotations

import numpy as np
import pytest

from edge.errors import GateError, InputError
from edge.metrics.intervals import Interval
from edge.metrics.pairs import PairRows
from export.gate import Drop, accuracy_drop, paired_difference, rank_flips, require_inside, tar_drop
from export.request import Budget
from export.thresholds import fit_threshold


def people(count: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of `count` identities, `each` pictures apiece, and their labels."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 1, (count, 1, 32))
    rows = (centres + spread * random.normal(0, 1, (count, each, 32))).reshape(-1, 32).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.repeat(np.arange(count), each)


def pairs_of(labels: np.ndarray, count: int, seed: int = 0) -> PairRows:
    random = np.random.default_rng(seed)
    first = random.integers(0, len(labels), 20 * count)
    second = random.integers(0, len(labels), 20 * count)
    same = labels[first] == labels[second]
    genuine = np.flatnonzero(same & (first != second))[: count // 2]
    other = np.flatnonzero(~same)[: count // 2]
    chosen = np.concatenate([genuine, other])
    return PairRows(first[chosen], second[chosen], same[chosen], np.arange(len(chosen)) % 5)


def noisy(rows: np.ndarray, amount: float) -> np.ndarray:
    shaken = rows + amount * np.random.default_rng(9).normal(0, 1, rows.shape).astype(np.float32)
    return shaken / np.linalg.norm(shaken, axis=1, keepdims=True)


def test_the_paired_interval_covers_the_truth() -> None:
    """Simulated: 5 % discordant pairs, a true drop of 1 point; the interval must hold it about 95 times in 100."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        lost, won, _ = random.multinomial(600, [0.03, 0.02, 0.95])
        low, high = paired_difference(int(lost), int(won), 600)
        covered += low <= 0.01 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_no_discordant_pair_is_no_proof_of_no_drop() -> None:
    low, high = paired_difference(0, 0, 100)
    assert low < -0.03
    assert high > 0.03
    assert paired_difference(0, 0, 100_000)[1] < 1e-4


def test_an_equal_variant_passes_where_pairs_are_many_and_is_undecided_where_they_are_few() -> None:
    rows, labels = people(120, 20, 0.8)
    many = accuracy_drop(rows, rows.copy(), pairs_of(labels, 2000))
    require_inside("int8", [many], 0.5)
    few = accuracy_drop(rows, rows.copy(), pairs_of(labels, 60))
    with pytest.raises(GateError, match="too few pairs to decide"):
        require_inside("int8", [few], 0.5)


def test_a_ruined_variant_fails_with_figure_interval_and_budget() -> None:
    rows, labels = people(60, 20, 0.6)
    drop = accuracy_drop(rows, noisy(rows, 0.5), pairs_of(labels, 1500))
    with pytest.raises(GateError, match=r"drops \d+\.\d+ points \(95 % .* the budget is 0\.5") as caught:
        require_inside("embedder-int8", [drop], 0.5)
    assert caught.value.exit_code == 3


def test_tar_is_compared_at_each_models_own_threshold() -> None:
    rows, labels = people(60, 8, 0.7)
    same = tar_drop(rows, rows.copy(), labels, 1e-3)
    assert same.points.value == 0
    assert same.points.high > 0
    worse = tar_drop(rows, noisy(rows, 0.15), labels, 1e-3)
    assert worse.points.low > 0
    assert worse.reference > worse.variant
    with pytest.raises(InputError, match="too few impostor pairs"):
        tar_drop(rows[:16], rows[:16], labels[:16], 1e-6)


def test_the_shift_of_the_threshold_is_recorded() -> None:
    """Pulling everybody together by a common direction raises every score, and the threshold with them."""
    rows, labels = people(60, 8, 0.7)
    together = np.hstack([rows, np.full((len(rows), 1), 0.5, np.float32)])
    together /= np.linalg.norm(together, axis=1, keepdims=True)
    shifted = tar_drop(rows, together, labels, 1e-3).to_dict()["threshold"]
    # A score s becomes (s + 0.25) / 1.25.
    assert shifted["variant"] == pytest.approx((shifted["reference"] + 0.25) / 1.25, abs=1e-5)
    assert shifted["shift"] == shifted["variant"] - shifted["reference"] > 0


def test_rank_flips_are_counted() -> None:
    rows, _ = people(10, 3, 0.5)
    assert rank_flips(rows, rows.copy()) == 0
    assert rank_flips(rows, rows[::-1].copy()) > 5


def test_thresholds_hold_their_far_and_small_sets_are_refused() -> None:
    rows, labels = people(40, 6, 1.0)
    threshold, tar = fit_threshold(rows, labels, 1e-2, "made-up people")
    scores = rows @ rows.T
    i, j = np.triu_indices(len(rows), 1)
    impostors = scores[i, j][labels[i] != labels[j]]
    assert (impostors >= threshold.similarity).mean() <= 1e-2
    assert (impostors >= threshold.similarity - 0.02).mean() > 1e-2
    assert threshold.pairs == len(impostors)
    assert tar is not None
    assert 0 <= tar["low"] <= tar["value"] <= tar["high"] <= 1
    with pytest.raises(
        InputError, match=r"^made-up people: too few impostor pairs.*; name .* --pairs-from, or a higher --far$"
    ):
        fit_threshold(rows, labels, 1e-6, "made-up people")
    with pytest.raises(InputError, match="one identity"):
        fit_threshold(rows[:6], labels[:6], 1e-2, "photos")


def test_budgets() -> None:
    Budget().require_cosine("embedder-int8", "int8", 0.98, "9 crops")
    Budget(min_cosine=0.999).require_cosine("embedder-fp16", "fp16", 0.9995, "9 crops")
    with pytest.raises(GateError, match=r"0\.98000 over 9 crops, the budget is 0\.999"):
        Budget(min_cosine=0.999).require_cosine("embedder-int8", "int8", 0.98, "9 crops")
    with pytest.raises(GateError):
        Budget().require_cosine("embedder-int8", "int8", float("nan"), "9 crops")
    Budget.require_agreement("detector-int8", "int8", 0.0, 0)
    with pytest.raises(GateError, match="detector-int8"):
        Budget.require_agreement("detector-int8", "int8", 0.5, 30)


def test_a_drop_prints_figure_interval_and_count() -> None:
    text = str(Drop("accuracy", 0.99, 0.98, Interval(1.0, 0.2, 1.8), 3000))
    assert text == "accuracy drops 1.000 points (95 % 0.200 to 1.800, 3,000 pairs)"


def test_a_model_that_gives_nothing_is_judged_not_crashed_on(build) -> None:
    from onnx import helper

    from edge.contract import ModelContract
    from export.agreement import compare_embeddings, embed_with
    from export.passes import embed_preprocessing, l2_normalise
    from export.passes.embed_preprocessing import bundle_contract

    contract = ModelContract("embedder", (4, 4), "bgr", "nchw", "float32", template="arcface-112", embedding_size=5)
    weight = np.zeros((5, 3, 4, 4), np.float32)
    weight[0] = np.inf  # infinite for any picture with a pixel above 0, and 0 · inf on a black one: never a number
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])]
    model = l2_normalise(embed_preprocessing(build(nodes, {"w": weight}, ["n", 3, 4, 4], ["n", 5]), contract))
    crops = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    rows = embed_with(model.SerializeToString(), bundle_contract(contract), crops)
    np.testing.assert_array_equal(rows, 0)
    assert compare_embeddings(rows, np.eye(5, dtype=np.float32)[:3], "noise").mean_cosine == 0
