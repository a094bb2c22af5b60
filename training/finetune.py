"""Fine-tuning: an ArcFace head on a trained MobileFaceNet, few photos, and nothing else forgotten.

Stated policies. BatchNorm keeps the statistics of the base: a few photos of few people are no estimate of all faces.
Layers before `train_from` stay as they are. What is trained is held to the answers of the base network, on the photos
(`distill`) and on rehearsal crops of other people (`rehearse`), after Li and Hoiem, "Learning without Forgetting",
ECCV 2016. An epoch shows one photo of each group of near-duplicates.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import InputError
from edge.types import Image
from training.distill.crops import augment
from training.embedding import embed, to_input
from training.evaluate import Labels, closed_set
from training.margins import MarginHead
from training.mobilefacenet import MobileFaceNet
from training.planning import seconds_of
from training.recipe import LAYERS, TRAIN_FROM, EpochRow, FinetuneOptions
from training.running import write_state


@dataclass(frozen=True, slots=True)
class LearningSet:
    """crops: (N, 112, 112, 3) uint8 BGR; labels: (N,); groups: (N,), equal for near-duplicates."""

    crops: Image
    labels: Labels
    groups: Labels


class Crops(Protocol):
    """Aligned 112×112 crops of other people, one at a time: `training.distill.crops.CropStore`."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image:
        """(112, 112, 3) uint8 BGR."""


class Finetuner:
    """A run and its state. `run` does the epochs that are left; `save` and `load` carry it over a kill."""

    def __init__(
        self,
        base: MobileFaceNet,
        train: LearningSet,
        valid: LearningSet,
        options: FinetuneOptions,
        *,
        rehearsal: Crops | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.options = options
        self.device = device or torch.device("cpu")
        self.train_set, self.valid_set = train, valid
        self.rehearsal = rehearsal if options.rehearse > 0 else None
        self.model: MobileFaceNet = copy.deepcopy(base).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.base = copy.deepcopy(self.model).eval().requires_grad_(False)
        torch.manual_seed(options.seed)
        classes = int(train.labels.max()) + 1
        self.head = MarginHead(
            base.embedding_size, classes, kind=options.head, margin=options.margin, scale=options.scale
        ).to(self.device)
        self._freeze()
        self.optimizer = self._optimizer()
        self.history: list[EpochRow] = []
        self.best_epoch = 0
        self.best = self._weights()
        self.seconds = self.cpu_seconds = 0.0

    # ── what learns ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _freeze(self) -> None:
        first = TRAIN_FROM.index(self.options.train_from)
        self._fixed = LAYERS if self.options.train_from == "head" else LAYERS[:first]
        self._learning = LAYERS[len(self._fixed) :]
        for name in self._fixed:
            getattr(self.model, name).requires_grad_(False)

    def _optimizer(self) -> torch.optim.Optimizer:
        rates, decay = self.options.learning_rate, self.options.weight_decay
        body = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in body if p.ndim > 1], "weight_decay": decay, "rate": rates * self.options.body_rate},
            {"params": [p for p in body if p.ndim <= 1], "weight_decay": 0.0, "rate": rates * self.options.body_rate},
            {"params": list(self.head.parameters()), "weight_decay": 0.0, "rate": rates},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=rates)

    def _set_mode(self) -> None:
        self.model.eval()
        if self.options.batchnorm == "running":
            for name in self._learning:
                getattr(self.model, name).train()

    # ── epochs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def updates_per_epoch(self) -> int:
        """Batches of one photo a group; a last one of a single photo is left out."""
        groups = len(np.unique(self.train_set.groups))
        return groups // self.options.batch + (groups % self.options.batch > 1)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or validation has not improved for `patience` of them."""
        done = len(self.history) - 1
        return done >= self.options.epochs or done - self.best_epoch >= self.options.patience

    def run(self, after_epoch: Callable[[Finetuner, EpochRow], None] = lambda *_: None) -> None:
        """All that is left. `after_epoch` reports and saves; epoch 0 is reported too."""
        if not self.history:
            crops, labels = self.train_set.crops, torch.from_numpy(self.train_set.labels).to(self.device)
            self.head.imprint(torch.from_numpy(embed(self.base, crops, self.device)).to(self.device), labels)
            self._close_epoch(EpochRow(0, 0.0, *(math.nan,) * 4, *self._validate()), after_epoch)
        while not self.finished:
            began, cpu = time.perf_counter(), time.process_time()
            row = self._epoch(len(self.history))
            self.seconds += time.perf_counter() - began
            self.cpu_seconds += time.process_time() - cpu
            self._close_epoch(row, after_epoch)

    def _close_epoch(self, row: EpochRow, after_epoch: Callable[[Finetuner, EpochRow], None]) -> None:
        if not self.history or row.worth > self.history[self.best_epoch].worth:
            self.best_epoch, self.best = row.epoch, self._weights()
        self.history.append(row)
        after_epoch(self, row)

    def _epoch(self, epoch: int) -> EpochRow:
        self._set_mode()
        sums = np.zeros(4)
        rate = 0.0
        for step, rows in enumerate(self._batches(epoch)):
            rate = self._set_rate((epoch - 1) * self.updates_per_epoch + step)
            sums += self._update(rows, np.random.default_rng([self.options.seed, epoch, step]))
        loss, margin, distill, rehearse = (float(value) for value in sums / self.updates_per_epoch)
        return EpochRow(epoch, rate, loss, margin, distill, rehearse, *self._validate())

    def _batches(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Rows of the epoch's batches: one photo of each group, shuffled, from the seed and the epoch alone."""
        rng = np.random.default_rng([self.options.seed, epoch])
        shuffled = rng.permutation(len(self.train_set.groups))
        _, first = np.unique(self.train_set.groups[shuffled], return_index=True)
        order = rng.permutation(shuffled[first])
        size = self.options.batch
        for start in range(0, self.updates_per_epoch * size, size):
            yield order[start : start + size]

    def _set_rate(self, update: int) -> float:
        """Linear warm-up over the first epoch, then half a cosine to zero at the last."""
        warmup = self.updates_per_epoch
        rest = max(1, warmup * (self.options.epochs - 1))
        share = (update + 1) / warmup if update < warmup else 0.5 * (1 + math.cos(math.pi * (update - warmup) / rest))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        return self.options.learning_rate * share

    def _update(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """One update; loss, margin loss, 1 − cosine to the base on the photos, the same on the rehearsal crops."""
        crops = [augment(self.train_set.crops[row], rng) for row in rows]
        if self.rehearsal is not None:
            crops += [
                augment(self.rehearsal.image(int(i)), rng) for i in rng.integers(0, len(self.rehearsal), len(rows))
            ]
        fixed, base = self._before(crops)
        embeddings = F.normalize(run_layers(self.model, fixed, self._learning), dim=1)
        labels = torch.from_numpy(self.train_set.labels[rows]).to(self.device)
        margin = F.cross_entropy(self.head(embeddings[: len(rows)], labels), labels)
        away = 1.0 - (embeddings * base).sum(dim=1)
        distill = away[: len(rows)].mean()
        rehearse = away[len(rows) :].mean() if self.rehearsal is not None else torch.zeros((), device=self.device)
        loss = margin + self.options.distill * distill + self.options.rehearse * rehearse
        if not torch.isfinite(loss):
            raise InputError("training diverged: the loss is not finite; a lower --lr keeps it")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return np.array([float(part.detach()) for part in (loss, margin, distill, rehearse)])

    @torch.no_grad()
    def _before(self, crops: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Output of the layers that stay, which base and student share, and the base's unit embeddings."""
        fixed = run_layers(self.base, to_input(crops).to(self.device), self._fixed)
        return fixed, F.normalize(run_layers(self.base, fixed, self._learning), dim=1)

    def _validate(self) -> tuple[float, float]:
        """(accuracy, gap) on the validation photos by the head's axes; (-1, 0) where there are none."""
        valid = self.valid_set
        if len(valid.labels) == 0:
            return -1.0, 0.0
        axes = F.normalize(self.head.kernel.detach(), dim=0).T.cpu().numpy()
        result = closed_set(axes, embed(self.model, valid.crops, self.device), valid.labels, valid.groups)
        return result.photos.value, float(np.nanmean(result.margin))

    # ── over a kill ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        parts: dict[str, nn.Module] = {"model": self.model, "head": self.head}
        return {name: {k: t.detach().cpu().clone() for k, t in m.state_dict().items()} for name, m in parts.items()}

    def best_model(self) -> tuple[MobileFaceNet, Tensor]:
        """The network of the best epoch, on the CPU in evaluation mode, and its head (embedding_size, classes)."""
        model = copy.deepcopy(self.base).cpu()
        model.load_state_dict(self.best["model"])
        return model.eval(), self.best["head"]["kernel"]

    def save(self, path: Path, run: dict[str, str]) -> None:
        """Writes the whole state beside `run`, which says what it belongs to. A kill leaves the old file or the new."""
        state = {
            "run": run,
            "options": asdict(self.options),
            "history": [asdict(row) for row in self.history],
            "now": self._weights(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "optimizer": self.optimizer.state_dict(),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }
        write_state(state, path)

    def load(self, path: Path, run: dict[str, str]) -> None:
        """Goes on from `save`. Raises InputError where options, data or base are others than the ones saved with."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            then = {**state["options"], **state["run"]}
        except Exception as error:
            raise InputError(f"{path}: is not the state of a run, or damaged; remove it to begin anew") from error
        now = {**asdict(self.options), **run}
        if changed := sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key)):
            raise InputError(
                f"{path}: the run to resume had other values of {', '.join(changed)}; use them, or another --out"
            )
        self.history = [EpochRow(**row) for row in state["history"]]
        self.model.load_state_dict(state["now"]["model"])
        self.head.load_state_dict(state["now"]["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]


def run_layers(model: MobileFaceNet, x: Tensor, names: Sequence[str]) -> Tensor:
    """`x` through some of the network's layers, in order: all of `LAYERS` are `MobileFaceNet.features`."""
    for name in names:
        x = getattr(model, name)(x.flatten(1) if name == "linear" else x)
    return x


def seconds_per_update(tuner: Finetuner) -> float:
    """Measured on a copy, which is thrown away, after one update to warm up."""
    trial = copy.deepcopy(tuner)
    rows = next(trial._batches(1))
    trial._set_mode()
    return seconds_of(lambda: trial._update(rows, np.random.default_rng(0)))
