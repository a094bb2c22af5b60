"""Training the detector: a run that may be stopped and goes on, in two phases.

Phase 1 teaches one unit after the other what YuNet-s's unit computes (`cascade.py`). Phase 2 teaches the network as a
whole: landmarks from labels, which a face mesh places or YuNet-n gives as the mean of many views of a face, scores and
boxes from what YuNet-s answers to the same samples. It may begin from weights that were trained before. What step k
sees depends on the seed and k alone: a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.errors import InputError
from edge.weights.digests import digest_of
from training.card import command, machine, versions
from training.detector.augment import draw, draw_portrait
from training.detector.cascade import MOST, UNITS, Bank, Cascade, fill_bank
from training.detector.data import Pools
from training.detector.losses import Answers, detection_loss, kept_error, labelled_landmarks
from training.detector.network import ARCH, OUTPUT_NAMES, EdgeDetector, load_unfolded
from training.detector.targets import grid
from training.detector.teacher import Teacher
from training.detector.validate import validate
from training.muon import Muon
from training.planning import duration, seconds_of
from training.running import follow, learn, rate_at, to_tensor, write_state

LIMITS = (
    "It learned unit by unit what YuNet-s computes, whose units have the same form: it errs where YuNet-s errs. Its "
    "weights were trained from random ones.",
    "All Avengers crops and scenes come from pictures of five people.",
)

SAVE_EVERY_SECONDS = 120.0
LOG_EVERY_STEPS = 50


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters of a run.

    bank, unit_steps, unit_rate: samples of phase 1 (4 MB of memory each at 320 pixels), updates of each unit, and
    highest learning rate. steps, batch, rate, window: of phase 2, the last the pixels of its samples' side at most;
    half of a batch are photos of one person. landmarks, others, kept, answers: weights of the parts of its loss,
    landmarks those of such photos, others those of the faces in the other half. loosened: share of the weights of kept
    and answers that phase 2 begins with; it grows to 1 by the end. Landmarks hardly learned while scores and boxes were
    held tightly from the beginning and faces were as small as in the first phase: 6.8 % of the eye distance from
    held-out labels after 4,000 updates; with large faces, a higher rate and loosened weights 4.9 after 2,000.
    """

    bank: int = 768
    unit_steps: int = 2000
    unit_rate: float = 1e-2
    steps: int = 18000
    batch: int = 8
    rate: float = 4e-3
    window: int = 224
    landmarks: float = 10.0
    others: float = 1.0
    loosened: float = 0.05
    kept: float = 40.0
    answers: float = 10.0
    size: int = 320
    seed: int = 1
    average: float = 0.99
    warm_up: int = 20
    crops_of_each: int = 400


class Run:
    """A training run: network, running average of its weights, optimiser and clock, all in one state file."""

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        pools: Pools,
        state: Path,
        start: Path | None = None,
        labelled_by: str = "YuNet-n (Apache-2.0), the mean of many views",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.teacher, self.pools, self.state = recipe, teacher, pools, state
        self.labelled_by = labelled_by
        self.network: EdgeDetector = EdgeDetector().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.taught = 0
        """Units that phase 1 has taught."""
        self.started_from: dict[str, str] = {}
        if start is not None:
            self.network.load_state_dict(load_unfolded(start).state_dict())
            self.taught = len(UNITS)
            self.started_from = {"file": start.name, "sha256": digest_of(start)}
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimiser = Muon(self.network.parameters())
        self._window = min(recipe.size, recipe.window)
        self._cells = grid(self._window, self._window)
        self.step, self.spent_wall, self.spent_cpu = 0, 0.0, 0.0
        if state.exists():
            self._resume()

    def train(self, validate_every: int) -> None:
        """Says what it will take, and runs to the last step; saves after each unit, then every two minutes."""
        print(self.plan(), flush=True)
        if self.taught < len(UNITS):
            self._teach_units()
        self.network.eval()  # BatchNorm is held: the units were taught so, and mosaics have no steady statistics
        wall, cpu = time.monotonic(), time.process_time()
        totals = dict[str, float]()
        while self.step < self.recipe.steps:
            for name, value in self._update().items():
                totals[name] = totals.get(name, 0.0) + value
            now = time.monotonic()
            if self.step % LOG_EVERY_STEPS == 0:
                parts = " ".join(f"{name} {value / LOG_EVERY_STEPS:.3f}" for name, value in totals.items())
                print(f"step {self.step}/{self.recipe.steps} {self.spent_wall + now - wall:.0f} s {parts}", flush=True)
                totals = {}
            if self.step % validate_every == 0 or self.step == self.recipe.steps:
                print(f"step {self.step} held out: {self._held_out()}", flush=True)
            if now - wall > SAVE_EVERY_SECONDS or self.step == self.recipe.steps:
                self.spent_wall += now - wall
                self.spent_cpu += time.process_time() - cpu
                wall, cpu = now, time.process_time()
                self._save()

    def plan(self) -> str:
        """What is left and how long it will take, from steps of copies; looks at held-out pictures come on top."""
        units, steps = len(UNITS) - self.taught, max(0, self.recipe.steps - self.step)
        parts, seconds = [], 0.0
        if units:
            took = self._seconds_of_units()
            parts.append(f"{units} units {duration(took)}")
            seconds += took
        if steps:
            trial, learning = copy.copy(self), (self.network, self.averaged, self.optimiser)
            trial.network, trial.averaged, trial.optimiser = copy.deepcopy(learning)
            trial.network.eval()
            each = seconds_of(trial._update)
            parts.append(f"{steps} steps of {each:.2f} s")
            seconds += steps * each
        return f"takes about {duration(seconds)}: {', '.join(parts)}" if parts else "no steps are left"

    def _seconds_of_units(self) -> float:
        """Of the units that are left, from one update and from four of each, on a copy and a small bank."""
        recipe = self.recipe
        count = min(recipe.bank, MOST)
        began = time.perf_counter()
        small = self._bank(count)
        filled = time.perf_counter() - began

        def taught(updates: int) -> float:
            # What a unit is taught is taken out of the bank.
            bank = Bank(small.images, dict(small.features), dict(small.heads))
            cascade = self._cascade(copy.deepcopy(self.network), bank, updates)
            began = time.perf_counter()
            list(cascade.run())
            return time.perf_counter() - began

        with torch.random.fork_rng(devices=[]):
            taught(1)  # to warm up
            one, four = taught(1), taught(4)
        update = max(0.0, four - one) / 3
        return update * recipe.unit_steps + (filled + max(0.0, one - update)) * recipe.bank / count

    def _bank(self, count: int) -> Bank:
        """The first samples of phase 1, and the answers to them."""
        recipe = self.recipe
        samples = (
            draw(np.random.default_rng([recipe.seed, 0, number]), self.pools, recipe.size) for number in range(count)
        )
        return fill_bank(samples, count, self.teacher)

    def _cascade(self, network: EdgeDetector, bank: Bank, updates: int) -> Cascade:
        """Phase 1 on a network, from the first unit that is not taught."""
        recipe = self.recipe
        cells = grid(recipe.size, recipe.size)
        return Cascade(network, bank, cells, updates, recipe.unit_rate, seed=recipe.seed, done=self.taught)

    def _teach_units(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        cascade = self._cascade(self.network, self._bank(self.recipe.bank), self.recipe.unit_steps)
        for name, error in cascade.run():
            self.taught += 1
            self.averaged.load_state_dict(self.network.state_dict())
            self.spent_wall += time.monotonic() - wall
            self.spent_cpu += time.process_time() - cpu
            wall, cpu = time.monotonic(), time.process_time()
            self._save()
            print(f"unit {self.taught}/{len(UNITS)} {name}: error {error:.4f}, {self.spent_wall:.0f} s", flush=True)
        print(f"units taught, held out: {self._held_out()}", flush=True)

    def _update(self) -> dict[str, float]:
        """One optimiser step of phase 2; gives the parts of the loss."""
        rng = np.random.default_rng([self.recipe.seed, 2, self.step])
        makers = [draw_portrait if i % 2 else draw for i in range(self.recipe.batch)]
        samples = [make(rng, self.pools, self._window) for make in makers]
        pixels = to_tensor([sample.image for sample in samples])
        answers = self.teacher(pixels.numpy())
        taught = Answers.of_heads({name: torch.from_numpy(answers[name]) for name in OUTPUT_NAMES})
        logits = taught.as_logits()
        own = Answers.of_levels(self.network.predictions(pixels))

        def landmarks(part: slice) -> Tensor:
            return labelled_landmarks(own.of(part), logits.of(part), self._cells, samples[part])

        recipe = self.recipe
        held = recipe.loosened ** (1 - self.step / recipe.steps)
        parts = {
            "landmarks": recipe.landmarks * landmarks(slice(1, None, 2)),
            "others": recipe.others * landmarks(slice(0, None, 2)),
            "kept": held * recipe.kept * kept_error(own, logits),
            "answers": held * recipe.answers * detection_loss(own, taught, self._cells),
        }
        rate = rate_at(self.step, recipe.steps, recipe.rate, recipe.warm_up)
        learn(self.network, self.optimiser, torch.stack(list(parts.values())).sum(), rate)
        self.step += 1
        follow(self.averaged, self.network, self.recipe.average, self.step)
        return {name: float(part.detach()) for name, part in parts.items()}

    def describe(self) -> dict[str, Any]:
        """What the card says of the training: data, recipe, time, and the look at the held-out pictures."""
        pools, recipe = self.pools, self.recipe
        return {
            "architecture": ARCH,
            "data": _sources(pools, self.labelled_by if recipe.steps else ""),
            "limits": [
                *LIMITS,
                *([f"Its landmarks err where their labels do, by {self.labelled_by}."] if recipe.steps else []),
            ],
            **({"started_from": self.started_from} if self.started_from else {}),
            "recipe": asdict(recipe),
            "held_out": self._held_out(),
            "took": {"wall_seconds": round(self.spent_wall, 1), "cpu_seconds": round(self.spent_cpu, 1)},
            "machine": machine(torch.device("cpu")),
            "versions": versions(),
            "command": command(),
        }

    def _held_out(self) -> str:
        return validate(self.averaged, self.pools.held_out, self.pools.held_portraits)

    def _save(self) -> None:
        state: dict[str, Any] = {
            "taught": self.taught,
            "step": self.step,
            "seed": self.recipe.seed,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "started_from": self.started_from,
            "optimiser": self.optimiser.state_dict(),
            "spent": (self.spent_wall, self.spent_cpu),
        }
        write_state(state, self.state)

    def _resume(self) -> None:
        try:
            state = torch.load(self.state, weights_only=True)
            if state["seed"] != self.recipe.seed:
                raise InputError(f"{self.state}: is of seed {state['seed']}; give that seed, or another --state")
            if self.started_from not in ({}, state["started_from"]):
                raise InputError(f"{self.state}: did not begin from {self.started_from['file']}; name another --state")
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.taught, self.step, self.started_from = state["taught"], state["step"], state["started_from"]
            self.spent_wall, self.spent_cpu = state["spent"]
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, UnpicklingError) as error:
            raise InputError(f"{self.state}: not a state of this training; remove it to begin anew") from error
        print(f"{self.state}: goes on after step {self.step}", flush=True)


def _sources(pools: Pools, labelled_by: str) -> str:
    """labelled_by: who placed the landmarks that the second phase learned from; "" where there was none."""
    taught = (
        "the answers of YuNet-s (Apache-2.0), unit by unit, to mosaics and windows of them. True boxes, and boxes by "
        "YuNet-n (Apache-2.0), only placed the windows"
    )
    if labelled_by:
        taught += f"; then of the whole network to such windows, with landmarks by {labelled_by}"
    return (
        f"{len(pools.scenes):,} WIDER FACE val pictures ({len(pools.held_out)} more held out for choices), "
        f"{len(pools.portraits):,} CelebA photos ({len(pools.held_portraits)} more held out) and "
        f"{len(pools.crops):,} aligned 112x112 crops (CelebA, Glint360K, Pins), and {taught}. WIDER FACE, CelebA and "
        "Glint360K are for research; the Pins photos are web scrapes without a stated licence."
    )
