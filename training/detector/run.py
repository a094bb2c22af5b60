"""Training the detector: one command, resumable, in two phases.

Phase 1 teaches one unit after the other what YuNet-s's unit computes (`cascade.py`). Phase 2, which is left out unless
it is asked for, trains all of them but the stem together, on the answers of YuNet-n and, more and more, on the true
faces: so far it cost more than it brought, 84.9 → 83.2 % AP on held-out pictures after 300 steps. What step k sees
depends on the seed and k alone: a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from edge.errors import InputError
from edge.types import Floats
from training.card import command, machine, versions, write_card
from training.detector.augment import Sample, draw
from training.detector.cascade import UNITS, Cascade, fill_bank
from training.detector.data import Pools
from training.detector.labels import read_pools
from training.detector.losses import Answers, Weights, answer_loss
from training.detector.network import ARCH, EdgeDetector, save
from training.detector.stages import teacher_answers, units_together
from training.detector.targets import grid
from training.detector.teacher import TAPS, Teacher
from training.detector.validate import validate

LIMITS = (
    "It learned unit by unit what YuNet-s computes, whose units have the same form: it errs where YuNet-s errs, and is "
    "at best as good. Its weights were trained from random ones.",
    "All Avengers crops and scenes come from pictures of five people.",
)
OF_PHASE_TWO = "Afterwards it learned from the answers of YuNet-n, and landmarks from YuNet-n alone."

SAVE_EVERY_SECONDS = 120.0
LOG_EVERY_STEPS = 50


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters of a run.

    bank, unit_steps, unit_rate: samples of phase 1 (4 MB of memory each at 320 pixels), updates of each unit, and
    highest learning rate. steps, batch, rate: of phase 2. most_truth: weight of the true
    faces against the teacher's answers at the end. features: weight of the units at the start of phase 2, which falls
    to nothing by its middle; landmarks: weight of the landmarks.
    """

    bank: int = 768
    unit_steps: int = 2000
    unit_rate: float = 1e-2
    steps: int = 0
    batch: int = 8
    rate: float = 2e-3
    size: int = 320
    seed: int = 1
    decay: float = 1e-4
    most_truth: float = 0.6
    features: float = 1.0
    landmarks: float = 10.0
    average: float = 0.998
    warm_up: int = 100
    crops_of_each: int = 400


@dataclass(frozen=True, slots=True)
class Teachers:
    """of_units: YuNet-s with what its units compute; of_answers: YuNet-n, the more accurate of the two."""

    of_units: Teacher
    of_answers: Teacher


def configure_detector(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `edge train detector`."""
    recipe = Recipe()
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with wider/train, scenes/celeba.zip and train/faces112-*.zip"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="yunet_n_dynamic.onnx, for labels and answers")
    parser.add_argument("--unit-teacher", type=Path, required=True, help="yunet_s_dynamic.onnx, teaches unit by unit")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument("--state", type=Path, help="file to stop and resume with (default: beside --out, .state)")
    parser.add_argument(
        "--bank", type=int, default=recipe.bank, help="samples of phase 1, 4 MB each (default: %(default)s)"
    )
    parser.add_argument(
        "--unit-steps", type=int, default=recipe.unit_steps, help="phase 1: updates a unit (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=recipe.steps,
        help="updates of phase 2, 0 to leave it out; may change on resuming (default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, default=recipe.batch, help="samples an update of phase 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=recipe.rate, help="highest learning rate of phase 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=recipe.size,
        help="pixels of a sample's side, a multiple of 32 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=recipe.seed, help="of weights and samples (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--validate-every",
        type=int,
        default=500,
        metavar="STEPS",
        help="steps between two looks at the held-out pictures (default: %(default)s)",
    )


def run_detector(args: argparse.Namespace) -> int:
    """Trains, prints what it measures on the held-out pictures, and writes the weights."""
    if args.size < 64 or args.size % 32 or min(args.unit_steps, args.bank, args.batch, args.threads) < 1:
        raise InputError(
            "--size is a multiple of 32 from 64 up; --bank, --unit-steps, --batch and --threads are 1 or more"
        )
    if args.steps < 0:
        raise InputError(f"--steps {args.steps}: 0 leaves out phase 2; there is no fewer")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    recipe = Recipe(
        bank=args.bank,
        unit_steps=args.unit_steps,
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        size=args.size,
        seed=args.seed,
    )
    teachers = Teachers(Teacher(args.unit_teacher, TAPS, args.threads), Teacher(args.teacher, {}, args.threads))
    pools = read_pools(args.data, args.teacher, recipe.crops_of_each, args.out.with_suffix(".labels.npz"))
    print(
        f"{len(pools.scenes)} scenes with true boxes ({len(pools.held_out)} more held out), "
        f"{len(pools.portraits)} photos and {len(pools.crops)} crops labelled by the teacher",
        flush=True,
    )
    run = Run(recipe, teachers, pools, args.state or args.out.with_suffix(".state"))
    run.train(args.validate_every)
    save(run.averaged, args.out, steps=recipe.steps, seed=recipe.seed)
    write_card(args.out.with_suffix(".training.json"), run.describe())
    print(f"{args.out}: {run.spent_wall:.0f} s wall, {run.spent_cpu:.0f} s CPU in all", flush=True)
    return 0


class Run:
    """A training run: network, running average of its weights, optimiser and clock, all in one state file."""

    def __init__(self, recipe: Recipe, teachers: Teachers, pools: Pools, state: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.teachers, self.pools, self.state = recipe, teachers, pools, state
        self.network: EdgeDetector = EdgeDetector().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).eval()
        heavy = [p for p in self.network.parameters() if p.ndim > 1]
        light = [p for p in self.network.parameters() if p.ndim == 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": heavy, "weight_decay": recipe.decay}, {"params": light, "weight_decay": 0.0}], lr=recipe.rate
        )
        self.cells = grid(recipe.size, recipe.size)
        self.taught = 0
        """Units that phase 1 has taught."""
        self.step, self.spent_wall, self.spent_cpu = 0, 0.0, 0.0
        if state.exists():
            self._resume()

    def train(self, validate_every: int) -> None:
        """Runs to the last step, saving the state after each unit, then every two minutes."""
        if self.taught < len(UNITS):
            self._teach_units()
        self.network.eval()  # BatchNorm is held: the units were taught so, and mosaics have no steady statistics
        start = wall = time.monotonic()
        cpu = time.process_time()
        began, totals = self.step, dict[str, float]()
        while self.step < self.recipe.steps:
            for name, value in self._update().items():
                totals[name] = totals.get(name, 0.0) + value
            now = time.monotonic()
            if self.step - began == 20:
                left = (now - start) / 20 * (self.recipe.steps - self.step)
                print(f"{(now - start) / 20:.2f} s a step: {left / 60:.0f} min for what is left", flush=True)
            if self.step % LOG_EVERY_STEPS == 0:
                parts = " ".join(f"{name} {value / LOG_EVERY_STEPS:.3f}" for name, value in totals.items())
                print(f"step {self.step}/{self.recipe.steps} {self.spent_wall + now - wall:.0f} s {parts}", flush=True)
                totals = {}
            if self.step % validate_every == 0 or self.step == self.recipe.steps:
                print(f"step {self.step} held out: {validate(self.averaged, self.pools.held_out)}", flush=True)
            if now - wall > SAVE_EVERY_SECONDS or self.step == self.recipe.steps:
                self.spent_wall += now - wall
                self.spent_cpu += time.process_time() - cpu
                wall, cpu = now, time.process_time()
                self._save()

    def _teach_units(self) -> None:
        recipe, wall, cpu = self.recipe, time.monotonic(), time.process_time()
        samples = (
            draw(np.random.default_rng([recipe.seed, 0, number]), self.pools, recipe.size)
            for number in range(recipe.bank)
        )
        bank = fill_bank(samples, recipe.bank, self.teachers.of_units)
        cascade = Cascade(
            self.network, bank, self.cells, recipe.unit_steps, recipe.unit_rate, seed=recipe.seed, done=self.taught
        )
        for name, error in cascade.run():
            self.taught += 1
            self.averaged.load_state_dict(self.network.state_dict())
            self.spent_wall += time.monotonic() - wall
            self.spent_cpu += time.process_time() - cpu
            wall, cpu = time.monotonic(), time.process_time()
            self._save()
            print(f"unit {self.taught}/{len(UNITS)} {name}: error {error:.4f}, {self.spent_wall:.0f} s", flush=True)
        print(f"units taught, held out: {validate(self.averaged, self.pools.held_out)}", flush=True)

    def _update(self) -> dict[str, float]:
        """One optimiser step of phase 2; gives the parts of the loss."""
        rng = np.random.default_rng([self.recipe.seed, 2, self.step])
        samples = [draw(rng, self.pools, self.recipe.size) for _ in range(self.recipe.batch)]
        parts = self._parts_together(samples)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimiser.step()
        self.step += 1
        self._average()
        return {name: float(part.detach()) for name, part in parts.items()}

    def _parts_together(self, samples: list[Sample]) -> dict[str, Tensor]:
        """The loss by part."""
        pixels, images = _tensors(samples)
        along = self.step / self.recipe.steps
        share = self.recipe.features * max(0.0, 1 - 2 * along)
        features, raw = units_together(
            self.network, images, _torch(self.teachers.of_units(pixels)) if share > 0 else {}
        )
        weights = Weights(
            truth=self.recipe.most_truth * min(1.0, 1.5 * along), landmarks=self.recipe.landmarks, taught_landmarks=0.0
        )
        wanted = teacher_answers(_torch(self.teachers.of_answers(pixels)))
        return {
            "features": share * features,
            **answer_loss(Answers.of_levels(raw), wanted, self.cells, samples, weights),
        }

    def _rate(self) -> float:
        """One cycle: a short linear rise, then a cosine to zero."""
        rise = min(1.0, (self.step + 1) / self.recipe.warm_up)
        return self.recipe.rate * rise * 0.5 * (1 + math.cos(math.pi * self.step / self.recipe.steps))

    def describe(self) -> dict[str, Any]:
        """What the card says of the training: data, recipe, time, and the look at the held-out pictures."""
        pools, recipe = self.pools, self.recipe
        return {
            "architecture": ARCH,
            "data": _sources(pools, second_phase=recipe.steps > 0),
            "limits": list(LIMITS) if recipe.steps == 0 else [*LIMITS, OF_PHASE_TWO],
            "recipe": asdict(recipe),
            "held_out": validate(self.averaged, pools.held_out),
            "took": {"wall_seconds": round(self.spent_wall, 1), "cpu_seconds": round(self.spent_cpu, 1)},
            "machine": machine(torch.device("cpu")),
            "versions": versions(),
            "command": command(),
        }

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for own, new in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if own.is_floating_point():
                own.lerp_(new, 1 - keep)
            else:
                own.copy_(new)

    def _save(self) -> None:
        state: dict[str, Any] = {
            "taught": self.taught,
            "step": self.step,
            "seed": self.recipe.seed,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "spent": (self.spent_wall, self.spent_cpu),
        }
        self.state.parent.mkdir(parents=True, exist_ok=True)
        partial = self.state.with_name(self.state.name + ".partial")
        torch.save(state, partial)
        partial.replace(self.state)

    def _resume(self) -> None:
        try:
            state = torch.load(self.state, weights_only=True)
            if state["seed"] != self.recipe.seed:
                raise InputError(f"{self.state}: is of seed {state['seed']}; give that seed, or another --state")
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.taught, self.step = state["taught"], state["step"]
            self.spent_wall, self.spent_cpu = state["spent"]
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise InputError(
                f"{self.state}: not a state of this training ({error}); remove it to begin anew"
            ) from error
        print(f"{self.state}: goes on after step {self.step}", flush=True)


def _sources(pools: Pools, *, second_phase: bool) -> str:
    taught = (
        "the answers of YuNet-s (Apache-2.0), unit by unit, to mosaics and windows of them. True boxes, and boxes and "
        "landmarks by YuNet-n (Apache-2.0), only placed the windows"
    )
    if second_phase:
        taught = (
            "the answers of YuNet-s (Apache-2.0), unit by unit, then true boxes, and boxes, landmarks and answers of "
            "YuNet-n (Apache-2.0)"
        )
    return (
        f"{len(pools.scenes):,} WIDER FACE val pictures ({len(pools.held_out)} more held out for choices), "
        f"{len(pools.portraits):,} CelebA photos and {len(pools.crops):,} aligned 112x112 crops (CelebA, Glint360K, "
        f"Pins), and {taught}. WIDER FACE, CelebA and Glint360K are for research; the Pins photos are web scrapes "
        "without a stated licence."
    )


def _tensors(samples: list[Sample]) -> tuple[Floats, Tensor]:
    """The images (N, 3, H, W), 0–255, for a teacher and for the network."""
    pixels = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2).astype(np.float32)
    return pixels, torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)


def _torch(arrays: dict[str, Floats]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}
