"""From a folder of identities to weights and their card. The command line and the root `train.py` are thin over it."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from edge.errors import InputError
from edge.types import Image
from training.card import command, describe_dataset, machine, versions, write_card, write_history
from training.checkpoint import save_embedder, save_head
from training.curves import draw_curves
from training.distill.crops import CropStore
from training.evaluate import ClosedSet
from training.finetune import Finetuner, seconds_per_update
from training.measure import Measurements, measure, require_measurable
from training.mobilefacenet import MobileFaceNet
from training.planning import duration
from training.prepare import Prepared, TrainingJob, prepare
from training.recipe import EpochRow
from training.splits import crossing_groups

HELD_OUT = 20
"""One person in so many of the rehearsal crops is never rehearsed: they are the strangers a threshold is fitted on."""

LIMITS = (
    "The closed-set figures rest on few people and few distinct photos of one kind; their intervals say how few. "
    "Nothing here speaks of other cameras, of disguise, or of attempts to deceive."
)


class _Part:
    """Some of the crops of a store."""

    def __init__(self, store: CropStore, indices: list[int]) -> None:
        self._store, self._indices = store, indices

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> Image:
        """(112, 112, 3) uint8 BGR."""
        return self._store.image(self._indices[index])


def run_job(job: TrainingJob, say: Callable[[str], None]) -> dict[str, Any]:
    """Trains, measures, writes everything into `job.out`, and gives the card. Raises InputError before it starts."""
    began = time.perf_counter()
    device = choose_device(job.device)
    require_measurable(job)
    prepared = prepare(job, say)
    store = CropStore.open(job.rehearsal) if job.rehearsal else None
    rehearsed, held_out = store.split(HELD_OUT) if store else ([], [])
    tuner = Finetuner(
        prepared.base,
        prepared.part("train"),
        prepared.part("valid"),
        job.options,
        rehearsal=_Part(store, rehearsed) if store else None,
        device=device,
    )
    run_id = {
        "data": prepared.dataset.digest,
        "faces": hashlib.sha256(prepared.faces.crops.tobytes()).hexdigest(),
        "base": prepared.base_info.digest,
        "activation": prepared.base.activation,
        "split": repr(prepared.split.to_dict()),
        "rehearsal": store.digest() if store else "none",
    }
    _train(tuner, job, run_id, say)
    model, head = tuner.best_model()
    strangers = np.stack([store.image(i) for i in held_out]) if store and held_out else None
    measured = measure(prepared, job, model, head, fit_strangers=strangers, device=device)
    files = [path.name for path in job.rehearsal]
    rehearsal = {"files": files, "crops": len(rehearsed), "sha256": run_id["rehearsal"]} if store else None
    card = {
        **_what_it_learned_from(job, prepared, model, rehearsal),
        "epochs_run": len(tuner.history) - 1,
        "best_epoch": tuner.best_epoch,
        "metrics": measured.to_dict(),
        "training_seconds": {"wall": round(tuner.seconds, 1), "cpu": round(tuner.cpu_seconds, 1)},
        "total_wall_seconds": round(time.perf_counter() - began, 1),
        "machine": machine(device),
        "versions": versions(),
        "command": command(),
        "limits": LIMITS,
    }
    _write(job.out, prepared, tuner, model, head, measured, card)
    return card


def _what_it_learned_from(
    job: TrainingJob, prepared: Prepared, model: MobileFaceNet, rehearsal: dict[str, Any] | None
) -> dict[str, Any]:
    """The first half of a card: weights, photos, crops rehearsed on, split and hyper-parameters, JSON-ready."""
    return {
        "what": "MobileFaceNet fine-tuned with a margin head",
        "base": {
            "file": job.weights.name,
            "sha256": prepared.base_info.digest,
            "activation": prepared.base_info.activation,
            "metadata": dict(prepared.base_info.metadata),
        },
        "activation": model.activation,
        "embedding_size": model.embedding_size,
        "data": describe_dataset(prepared.dataset)
        | {
            "distinct_photos": len(prepared.groups),
            "groups_from": prepared.groups_from,
            "without_a_face": [
                p.path for p, found in zip(prepared.dataset.photos, prepared.faces.found, strict=True) if not found
            ],
        },
        "detector": job.finder.name if job.finder else "none: the photos are aligned crops",
        "rehearsal": rehearsal,
        "split": prepared.split.to_dict(),
        "split_leaks": {"groups_in_two_parts": len(crossing_groups(prepared.split, prepared.groups))},
        "hyper_parameters": asdict(job.options),
    }


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA where there is one. Raises InputError where the device asked for is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here; take --device cpu")
    return torch.device(name)


def _train(tuner: Finetuner, job: TrainingJob, run_id: dict[str, str], say: Callable[[str], None]) -> None:
    options, state = job.options, job.out / "resume.pt"
    if job.resume and state.is_file():
        tuner.load(state, run_id)
        say(f"goes on after epoch {len(tuner.history) - 1}")
    elif job.resume:
        say("nothing to resume; begins with epoch 1")
    say(_plan(tuner, job))
    done = max(0, len(tuner.history) - 1)
    with tqdm(total=options.epochs, initial=done, desc="epochs", unit="epoch", disable=None) as bar:

        def after_epoch(tuner: Finetuner, row: EpochRow) -> None:
            tuner.save(state, run_id)
            write_history(job.out / "history.csv", tuner.history)
            bar.update(min(1, row.epoch))
            bar.set_postfix(loss=f"{row.loss:.3f}", valid=f"{row.valid_accuracy:.3f}", gap=f"{row.valid_gap:.3f}")

        tuner.run(after_epoch)
    if len(tuner.history) - 1 < options.epochs:
        say(f"stopped after epoch {len(tuner.history) - 1}: no better validation for {options.patience} epochs")


def _plan(tuner: Finetuner, job: TrainingJob) -> str:
    train, options = tuner.train_set, job.options
    updates = tuner.updates_per_epoch * max(0, options.epochs - max(0, len(tuner.history) - 1))
    each = seconds_per_update(tuner) if updates else 0.0
    learning = sum(p.numel() for p in tuner.model.parameters() if p.requires_grad)
    rehearsal = f" and {options.batch} rehearsal crops" if tuner.rehearsal is not None else ""
    return (
        f"learns from {len(train.labels)} photos, {len(np.unique(train.groups))} of them distinct, "
        f"of {len(np.unique(train.labels))} people; validates on {len(tuner.valid_set.labels)}\n"
        f"{learning:,} parameters learn, from {options.train_from} on; "
        f"an update sees {options.batch} photos{rehearsal}\n"
        f"takes at most {duration(updates * each)}: {updates} updates of {each:.2f} s, measured on {tuner.device}"
    )


def _write(
    out: Path,
    prepared: Prepared,
    tuner: Finetuner,
    model: MobileFaceNet,
    head: torch.Tensor,
    measured: Measurements,
    card: dict[str, Any],
) -> None:
    metadata = {"role": "embedder", "dataset_sha256": prepared.dataset.digest, "base_sha256": prepared.base_info.digest}
    save_embedder(out / "mobilefacenet.safetensors", model, metadata)
    save_head(out / "head.safetensors", head, prepared.dataset.identities)
    write_history(out / "history.csv", tuner.history)
    draw_curves(out / "curves.png", tuner.history, tuner.best_epoch)
    if measured.closed_set is not None:
        test = [prepared.dataset.photos[row].path for row in prepared.rows("test")]
        write_predictions(out / "predictions.csv", test, prepared.dataset.identities, measured.closed_set)
    write_card(out / "card.json", card)


def write_predictions(path: Path, photos: list[str], identities: tuple[str, ...], result: ClosedSet) -> None:
    """One line a photo: who it shows, who was named ("" where no face was found), by how much."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("photo", "identity", "predicted", "right", "margin"))
        for photo, label, margin in zip(photos, result.predicted, result.margin, strict=True):
            name = identities[label] if label >= 0 else ""
            identity = PurePosixPath(photo).parts[0]
            table.writerow((photo, identity, name, int(name == identity), "" if np.isnan(margin) else f"{margin:.4f}"))
