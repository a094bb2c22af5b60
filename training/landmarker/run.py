"""Training the landmarker: one command, resumable.

What step k sees depends on the seed and k alone: a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from edge.align import WIDE_96, WIDE_96_EYES
from edge.errors import InputError
from edge.weights.resolve import find_weights
from training.card import command, machine, versions, write_card
from training.detector.labels import LandmarkTeacher
from training.landmarker.faces import Faces, Patch, read_faces
from training.landmarker.network import ARCH, EdgeLandmarker, save
from training.landmarker.samples import Sample, draw
from training.muon import Muon
from training.planning import duration, seconds_of
from training.running import follow, learn, rate_at, to_tensor, write_state

LIMITS = (
    "Its landmarks err where their labels do, by MediaPipe's face mesh.",
    "It corrects what a detector placed: a face whose landmarks are off by more than half the eye distance stays so.",
)

SAVE_EVERY_SECONDS = 120.0
HELD_OUT_VIEWS = 4
"""Drawn of each held-out face."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters of a run. average: share of the running average of the weights that a step keeps."""

    steps: int = 12000
    batch: int = 64
    rate: float = 4e-3
    warm_up: int = 100
    average: float = 0.998
    seed: int = 1
    crops_of_each: int = 2500


def configure_landmarker(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `edge train landmarker`."""
    recipe = Recipe()
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with wider/train, scenes/celeba.zip and train/faces112-*.zip"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="yunet_n_dynamic.onnx, finds the faces")
    parser.add_argument(
        "--mesh",
        metavar="FILE|NAME",
        default="mediapipe-face-mesh",
        help="MediaPipe's face mesh, places the landmarks: a file, or its name once it is fetched "
        "(needs the extra openvino; default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument("--state", type=Path, help="file to stop and resume with (default: beside --out, .state)")
    parser.add_argument(
        "--steps", type=int, default=recipe.steps, help="updates; may change on resuming (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=recipe.batch, help="samples an update (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=recipe.rate, help="highest learning rate (default: %(default)s)")
    parser.add_argument(
        "--crops-of-each",
        type=int,
        default=recipe.crops_of_each,
        metavar="CROPS",
        help="about so many crops of each archive at most (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=recipe.seed, help="of weights and samples (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--validate-every",
        type=int,
        default=1000,
        metavar="STEPS",
        help="steps between two looks at the held-out photos (default: %(default)s)",
    )


def run_landmarker(args: argparse.Namespace) -> int:
    """Trains, prints what it measures on the held-out photos, and writes the weights."""
    if min(args.steps, args.crops_of_each, args.threads, args.validate_every) < 1 or args.batch < 2:
        raise InputError("--batch is 2 or more; --steps, --crops-of-each, --threads and --validate-every are 1 or more")
    if not 0 < args.rate < math.inf:
        raise InputError(f"--rate {args.rate}: a learning rate lies above 0")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    recipe = Recipe(
        steps=args.steps, batch=args.batch, rate=args.rate, seed=args.seed, crops_of_each=args.crops_of_each
    )
    teacher = LandmarkTeacher(args.teacher, find_weights(args.mesh, "teacher"))
    faces = read_faces(args.data, teacher, recipe.crops_of_each, args.out.with_suffix(".labels.npz"))
    print(f"{len(faces.taught):,} faces to learn from, {len(faces.held_out)} held out", flush=True)
    run = Run(recipe, faces, args.state or args.out.with_suffix(".state"))
    run.train(args.validate_every)
    save(run.averaged, args.out, steps=recipe.steps, seed=recipe.seed)
    write_card(args.out.with_suffix(".training.json"), run.describe())
    print(f"{args.out}: {run.spent_wall:.0f} s wall, {run.spent_cpu:.0f} s CPU in all", flush=True)
    return 0


class Run:
    """A training run: network, running average of its weights, optimiser and clock, all in one state file."""

    def __init__(self, recipe: Recipe, faces: Faces, state: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.faces, self.state = recipe, faces, state
        self.network: EdgeLandmarker = EdgeLandmarker().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.train()
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimiser = Muon(self.network.parameters())
        self.step, self.spent_wall, self.spent_cpu = 0, 0.0, 0.0
        if state.exists():
            self._resume()

    def train(self, validate_every: int) -> None:
        """Says what it will take, and runs to the last step; saves the state every two minutes."""
        print(self.plan(), flush=True)
        wall, cpu = time.monotonic(), time.process_time()
        with tqdm(total=self.recipe.steps, initial=self.step, unit="step", leave=False) as bar:
            while self.step < self.recipe.steps:
                error = self._update()
                bar.update()
                bar.set_postfix_str(f"{100 * error:.2f} % of the eye distance", refresh=False)
                if self.step % validate_every == 0 or self.step == self.recipe.steps:
                    bar.write(f"step {self.step} held out: {self.held_out()}")
                now = time.monotonic()
                if now - wall > SAVE_EVERY_SECONDS or self.step == self.recipe.steps:
                    self.spent_wall += now - wall
                    self.spent_cpu += time.process_time() - cpu
                    wall, cpu = now, time.process_time()
                    self._save()

    def plan(self) -> str:
        """What is left and how long it will take, from steps of a copy; looks at the held-out faces come on top."""
        left = self.recipe.steps - self.step
        if left <= 0:
            return "no steps are left"
        trial, learning = copy.copy(self), (self.network, self.averaged, self.optimiser)
        trial.network, trial.averaged, trial.optimiser = copy.deepcopy(learning)
        each = seconds_of(trial._update)
        return f"takes about {duration(left * each)}: {left} steps of {each:.2f} s, {self.recipe.batch} samples each"

    def _update(self) -> float:
        """One optimiser step; gives the error, a share of the eye distance."""
        rng = np.random.default_rng([self.recipe.seed, self.step])
        chosen = rng.integers(0, len(self.faces.taught), self.recipe.batch)
        samples = [draw(rng, self.faces.taught[index]) for index in chosen]
        loss = _errors(self.network, samples).mean()
        recipe = self.recipe
        learn(self.network, self.optimiser, loss, rate_at(self.step, recipe.steps, recipe.rate, recipe.warm_up))
        self.step += 1
        follow(self.averaged, self.network, recipe.average, self.step)
        return float(loss.detach())

    def held_out(self) -> str:
        """The error on faces that are not learned from, as one line."""
        errors = held_out_errors(self.averaged, self.faces.held_out)
        median, most = 100 * np.quantile(errors, (0.5, 0.9))
        seen = f"{len(errors)} views of {len(self.faces.held_out)} faces"
        return f"median {median:.2f} % of the eye distance, nine in ten below {most:.2f} %, {seen}"

    def describe(self) -> dict[str, Any]:
        """What the card says of the training: data, recipe, time, and the look at the held-out photos."""
        return {
            "architecture": ARCH,
            "data": _sources(self.faces),
            "limits": list(LIMITS),
            "recipe": asdict(self.recipe),
            "held_out": self.held_out(),
            "took": {"wall_seconds": round(self.spent_wall, 1), "cpu_seconds": round(self.spent_cpu, 1)},
            "machine": machine(torch.device("cpu")),
            "versions": versions(),
            "command": command(),
        }

    def _save(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "spent": (self.spent_wall, self.spent_cpu),
        }
        write_state(state, self.state)

    def _resume(self) -> None:
        try:
            state = torch.load(self.state, weights_only=True)
            recipe = state["recipe"]
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            self.spent_wall, self.spent_cpu = state["spent"]
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, UnpicklingError) as error:
            raise InputError(f"{self.state}: not a state of this training; remove it to begin anew") from error
        for name, value in asdict(self.recipe).items():
            if name != "steps" and recipe.get(name) != value:
                raise InputError(f"{self.state}: is of {name} {recipe.get(name)}, not {value}; name another --state")
        print(f"{self.state}: goes on after step {self.step}", flush=True)


@torch.no_grad()
def held_out_errors(network: EdgeLandmarker, patches: list[Patch]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Mean distance of five points from their labels, shares of the eye distance, of HELD_OUT_VIEWS of each face."""
    rng = np.random.default_rng(0)
    samples = [draw(rng, patch) for patch in patches for _ in range(HELD_OUT_VIEWS)]
    errors: np.ndarray[Any, np.dtype[np.float32]] = _errors(network, samples).numpy()
    return errors


def _errors(network: EdgeLandmarker, samples: list[Sample]) -> Tensor:
    """(N,) mean distance of five points from their labels, shares of the eye distance."""
    wanted = np.stack([sample.points - WIDE_96 for sample in samples]).astype(np.float32)
    away = network(to_tensor([sample.image for sample in samples])).unflatten(1, (5, 2)) - torch.from_numpy(wanted)
    return away.norm(dim=2).mean(dim=1) / WIDE_96_EYES  # type: ignore[no-any-return]


def _sources(faces: Faces) -> str:
    return (
        f"{len(faces.taught):,} faces of WIDER FACE val pictures, CelebA photos and aligned 112x112 crops (CelebA, "
        f"Glint360K), {len(faces.held_out)} more of CelebA photos held out for choices; landmarks by MediaPipe's face "
        "mesh (Apache-2.0), the mean of eight views, faces found by YuNet-n (Apache-2.0). WIDER FACE, CelebA and "
        "Glint360K are for research."
    )
