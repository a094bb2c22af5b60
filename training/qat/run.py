"""The fine-tuning itself: a short one, resumable, whose step k depends on the seed and k alone."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from edge.errors import InputError
from training.qat.detector import DetectorTask
from training.qat.prepare import in_float, observe

SAVE_EVERY_SECONDS = 60.0
TIMED = 3
"""Steps that tell how long all will take."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """rate: the highest learning rate of Adam; it rises for `warm_up` updates and falls to zero in a straight line.

    settle: share of the updates after which ranges stay. average: of the weights, over updates. size: pixels.
    """

    steps: int = 400
    batch: int = 8
    rate: float = 1e-4
    size: int = 320
    seed: int = 1
    warm_up: int = 20
    settle: float = 0.5
    average: float = 0.98


@dataclass(slots=True)
class Course:
    """How it went. error_before, error_after: of rounded answers to judging photos, by `DetectorTask.loss`."""

    error_before: float = float("nan")
    error_after: float = float("nan")
    losses: list[float] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0


class Run:
    """Moves a task's weights. state: file to stop and resume with. base: digest of the weights it began with."""

    def __init__(self, task: DetectorTask, recipe: Recipe, state: Path, base: str) -> None:
        self.task, self.recipe, self.state, self._base = task, recipe, state, base
        self.course = Course()
        self._parameters = [value for value in task.prepared.parameters() if value.requires_grad]
        self._optimiser = torch.optim.Adam(self._parameters, betas=(0.9, 0.99), fused=True)
        self._averaged = [value.detach().clone() for value in self._parameters]
        self.step = 0
        if state.exists():
            self._resume()
        else:
            self._measure_ranges()
            self.course.error_before = self.error()

    def train(self) -> None:
        """Runs to the last step; the weights are then the averaged ones."""
        recipe = self.recipe
        wall, cpu = time.monotonic(), time.process_time()
        with tqdm(total=recipe.steps, initial=self.step, desc="qat", unit="step", disable=None) as bar:
            began, start = self.step, time.monotonic()
            while self.step < recipe.steps:
                loss = self._update()
                self.course.losses.append(round(loss, 6))
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}")
                now = time.monotonic()
                if self.step - began == TIMED:
                    left = (now - start) / TIMED * (recipe.steps - self.step)
                    print(f"{(now - start) / TIMED:.2f} s a step: {left / 60:.1f} min for what is left", flush=True)
                if now - wall > SAVE_EVERY_SECONDS or self.step == recipe.steps:
                    self.course.wall += now - wall
                    self.course.cpu += time.process_time() - cpu
                    wall, cpu = now, time.process_time()
                    self._save()
        with torch.no_grad():
            for value, averaged in zip(self._parameters, self._averaged, strict=True):
                value.copy_(averaged)
        self.course.error_after = self.error()

    @torch.no_grad()
    def error(self) -> float:
        """Mean error of the rounded answers to photos that nothing is learned from."""
        observe(self.task.prepared, False)
        errors = [float(self.task.loss(pixels)) for pixels in self.task.judging()]
        observe(self.task.prepared, True)
        return sum(errors) / len(errors)

    def _update(self) -> float:
        recipe = self.recipe
        observe(self.task.prepared, self.step < recipe.settle * recipe.steps)
        loss = self.task.loss(self.task.batch(self.step, recipe.batch))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        rate = recipe.rate * min(1.0, (self.step + 1) / recipe.warm_up) * (1.0 - self.step / recipe.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self.step += 1
        keep = min(recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for averaged, value in zip(self._averaged, self._parameters, strict=True):
                averaged.lerp_(value, 1 - keep)
        return float(loss.detach())

    @torch.no_grad()
    def _measure_ranges(self) -> None:
        with in_float(self.task.prepared):
            for pixels in self.task.measuring():
                self.task.prepared(pixels)

    def _identity(self) -> dict[str, Any]:
        return {"base": self._base, **asdict(self.recipe)}

    def _save(self) -> None:
        state = {
            "identity": self._identity(),
            "step": self.step,
            "network": self.task.prepared.state_dict(),
            "averaged": self._averaged,
            "optimiser": self._optimiser.state_dict(),
            "course": asdict(self.course),
        }
        self.state.parent.mkdir(parents=True, exist_ok=True)
        part = self.state.with_name(self.state.name + ".partial")
        torch.save(state, part)
        part.replace(self.state)

    def _resume(self) -> None:
        try:
            state = torch.load(self.state, weights_only=True)
            if state["identity"] != self._identity():
                raise InputError(f"{self.state}: is of other weights or another recipe; remove it, or name a --state")
            self.task.prepared.load_state_dict(state["network"])
            self._averaged = state["averaged"]
            self._optimiser.load_state_dict(state["optimiser"])
            self.step, self.course = state["step"], Course(**state["course"])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"{self.state}: no state of this training ({error}); remove it to begin anew") from error
        print(f"{self.state}: goes on after step {self.step}", flush=True)
