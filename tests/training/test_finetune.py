from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.errors import InputError
from edge.types import Image
from training.embedding import embed, to_input
from training.finetune import Finetuner, LearningSet, run_layers
from training.mobilefacenet import MobileFaceNet
from training.recipe import LAYERS, FinetuneOptions

FAST = FinetuneOptions(epochs=3, batch=4, train_from="conv_5", learning_rate=1e-2, patience=9)


@functools.cache
def small_base() -> MobileFaceNet:
    """Random weights, with BatchNorm statistics as a trained network has them: those of its input."""
    torch.manual_seed(11)
    model = MobileFaceNet(32, "relu").train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.momentum = None
        model(to_input(np.concatenate([learning_set(8, 5).crops, np.stack([Strangers().image(i) for i in range(5)])])))
    return model.eval()


def learning_set(photos: int, seed: int, classes: int = 2) -> LearningSet:
    """Crops of "people" who differ a little in brightness above and below, with noise; two of each group."""
    rng = np.random.default_rng(seed)
    labels = np.arange(photos) % classes
    ramp = np.linspace(-1, 1, 112)[None, :, None, None]
    sign = np.where(labels == 0, 1.0, -1.0)[:, None, None, None]
    noise = rng.normal(0, 25, (photos, 112, 112, 3))
    crops = np.clip(128 + 60 * sign * ramp + noise, 0, 255).astype(np.uint8)
    return LearningSet(crops, labels.astype(np.int64), (np.arange(photos) // (2 * classes) * classes + labels))


class Strangers:
    def __len__(self) -> int:
        return 5

    def image(self, index: int) -> Image:
        return np.random.default_rng(index).integers(0, 256, (112, 112, 3), np.uint8)


def make_tuner(options: FinetuneOptions = FAST, *, rehearsal: bool = True) -> Finetuner:
    strangers = Strangers() if rehearsal else None
    return Finetuner(small_base(), learning_set(16, 0), learning_set(6, 1), options, rehearsal=strangers)


def _flat(model: MobileFaceNet) -> torch.Tensor:
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def test_layers_in_order_are_the_network() -> None:
    model = small_base()
    x = to_input(learning_set(4, 2).crops)
    with torch.no_grad():
        assert torch.equal(run_layers(model, x, LAYERS), model.features(x))


def test_input_is_rgb_between_minus_one_and_one() -> None:
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    crop[..., 0] = 255
    x = to_input(crop)
    assert x.shape == (1, 3, 112, 112)
    assert (x[0, 2] == 1.0).all()
    assert (x[0, :2] == -1.0).all()


def test_training_separates_the_people_and_keeps_the_best_epoch() -> None:
    options = FinetuneOptions(epochs=6, batch=4, train_from="conv_5", learning_rate=5e-3, distill=0, rehearse=0)
    tuner = make_tuner(options)
    tuner.run()
    rows = tuner.history
    assert [row.epoch for row in rows] == list(range(7))
    assert rows[-1].valid_gap > 1.3 * rows[0].valid_gap
    assert rows[tuner.best_epoch].worth == max(row.worth for row in rows)
    assert rows[-1].learning_rate < rows[3].learning_rate < rows[1].learning_rate == 5e-3
    assert torch.equal(_flat(tuner.best_model()[0]), _flat(tuner.model)) == (tuner.best_epoch == 6)


def test_only_what_should_learn_changes_and_batchnorm_keeps_its_statistics() -> None:
    tuner = make_tuner()
    before = {name: t.clone() for name, t in tuner.model.state_dict().items()}
    tuner.run()
    for name, tensor in tuner.model.state_dict().items():
        layer = name.split(".")[0]
        fixed = LAYERS.index(layer) < LAYERS.index("conv_5")
        if fixed or name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(tuner.model.linear.weight, before["linear.weight"])
    assert not torch.equal(
        tuner.model.conv_5.state_dict()["model.0.conv.conv.weight"], before["conv_5.model.0.conv.conv.weight"]
    )


def test_running_batchnorm_moves_the_statistics_of_learning_layers_only() -> None:
    tuner = make_tuner(FinetuneOptions(epochs=1, batch=4, train_from="conv_5", batchnorm="running"))
    tuner.run()
    mine, base = tuner.model.state_dict(), tuner.base.state_dict()
    assert not torch.equal(mine["bn.running_mean"], base["bn.running_mean"])
    assert torch.equal(mine["conv_4.model.0.conv.bn.running_mean"], base["conv_4.model.0.conv.bn.running_mean"])


def test_head_alone_leaves_the_network_as_it_was() -> None:
    tuner = make_tuner(FinetuneOptions(epochs=1, batch=4, train_from="head"))
    tuner.run()
    assert torch.equal(_flat(tuner.model), _flat(tuner.base))


def test_rehearsal_holds_the_answers_on_other_people() -> None:
    crops = np.stack([Strangers().image(i) for i in range(5)])
    drift = []
    for weight in (0.0, 200.0):
        options = FinetuneOptions(
            epochs=6, batch=4, train_from="linear", learning_rate=1e-2, distill=0, rehearse=weight
        )
        tuner = make_tuner(options)
        tuner.run()
        drift.append(1 - (embed(tuner.model, crops) * embed(tuner.base, crops)).sum(axis=1).mean())
    assert drift[1] < 0.5 * drift[0]


def test_an_epoch_shows_one_photo_of_each_group() -> None:
    tuner = make_tuner()
    shown = [np.concatenate(list(tuner._batches(epoch))) for epoch in (1, 2)]
    for rows in shown:
        assert sorted(tuner.train_set.groups[rows]) == sorted(set(tuner.train_set.groups))
    assert set(shown[0]) != set(shown[1])


def test_stops_early_and_keeps_the_best() -> None:
    options = FinetuneOptions(epochs=30, batch=4, train_from="linear", learning_rate=1e-9, patience=2)
    tuner = make_tuner(options, rehearsal=False)
    tuner.run()
    assert len(tuner.history) - 1 - tuner.best_epoch == 2 or len(tuner.history) == 31
    assert len(tuner.history) < 31


def test_without_validation_the_last_epoch_counts() -> None:
    empty = learning_set(0, 0)
    tuner = Finetuner(small_base(), learning_set(8, 0), empty, FinetuneOptions(epochs=2, batch=4, train_from="linear"))
    tuner.run()
    assert tuner.best_epoch == 2


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = make_tuner()
    whole.run()

    class KilledError(Exception):
        pass

    def die_after(epoch: int):  # type: ignore[no-untyped-def]
        def after(tuner: Finetuner, row: object) -> None:
            tuner.save(tmp_path / "state.pt", {"data": "x"})
            if len(tuner.history) - 1 == epoch:
                raise KilledError

        return after

    for epoch in (0, 2):
        tuner = make_tuner()
        if (tmp_path / "state.pt").exists():
            tuner.load(tmp_path / "state.pt", {"data": "x"})
        with pytest.raises(KilledError):
            tuner.run(die_after(epoch))
    last = make_tuner()
    last.load(tmp_path / "state.pt", {"data": "x"})
    last.run()
    assert torch.equal(_flat(last.model), _flat(whole.model))
    assert torch.equal(last.head.kernel, whole.head.kernel)
    assert repr(last.history) == repr(whole.history)
    assert torch.equal(_flat(last.best_model()[0]), _flat(whole.best_model()[0]))


def test_resuming_another_run_is_refused(tmp_path: Path) -> None:
    make_tuner().save(tmp_path / "state.pt", {"data": "x"})
    with pytest.raises(InputError, match="other values of data"):
        make_tuner().load(tmp_path / "state.pt", {"data": "y"})
    with pytest.raises(InputError, match="other values of epochs"):
        make_tuner(FinetuneOptions(epochs=9, batch=4, train_from="conv_5", learning_rate=1e-2, patience=9)).load(
            tmp_path / "state.pt", {"data": "x"}
        )
    (tmp_path / "state.pt").write_bytes(b"cut")
    with pytest.raises(InputError, match="remove it"):
        make_tuner().load(tmp_path / "state.pt", {"data": "x"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 1},
        {"learning_rate": 0.0},
        {"train_from": "conv_7"},
        {"rehearse": -1.0},
        {"margin": -1.0},
        {"margin": 2.0},
        {"scale": 0.0},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        FinetuneOptions(**wrong)  # type: ignore[arg-type]


def test_training_that_diverges_says_so() -> None:
    tuner = make_tuner(FinetuneOptions(epochs=3, batch=4, train_from="conv_5", learning_rate=1e30))
    with pytest.raises(InputError, match="diverged"):
        tuner.run()
