"""Distillation from random weights to a finished embedder: a loop that may be killed at any moment and goes on.

Two phases. In the first the blocks learn one after the other from features kept in memory (`cascade.py`). In the second
the whole network learns through its stages and its embedding, with BatchNorm held at the statistics of the crops: no
noise of small batches, and nearly half the time a step.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from edge.errors import InputError
from training.centring import centre
from training.checkpoint import MEAN, STD
from training.distill.blocks import STAGE_ENDS, chain_features, run_frozen
from training.distill.cascade import HEAD, STEPS, Bank, advance, fill_bank, learn_block, lesson_of
from training.distill.crops import CropStore, EpochOrder
from training.distill.feed import batches, make_batch
from training.distill.losses import embedding_map, relational_error, relative_error
from training.distill.recipe import FIXED, Recipe
from training.distill.replicas import copy_statistics, gather_gradients, replicate
from training.distill.start import fit_mean, fit_stage_scales
from training.equalise import equalise
from training.mobilefacenet import MobileFaceNet
from training.muon import Muon
from training.running import write_state
from training.teaching import CHUNK

BLOCKS, WHOLE, DONE = "blocks", "whole", "done"

MEASURED_BATCHES = 10
"""Batches of training crops that ranges and scales of finished weights are measured on."""
CENTRED_BATCHES = 256
"""Batches of training crops that the mean embedding is taken of."""
LIKE_THE_TEACHER = 0.5
"""Least mean cosine to the teacher's answers of weights that a second phase begins from; of another seed it is 0."""


class Answered(Protocol):
    """What a teacher says; see `training.distill.teacher.Answer`."""

    @property
    def blocks(self) -> Mapping[str, Tensor]: ...
    @property
    def embedding(self) -> Tensor: ...


TeacherLike = Callable[[Tensor], Answered]
"""(N, 3, 112, 112) float32 RGB 0–255 → its answer; called from several threads at once."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Student against teacher on the crops held out, which are not augmented.

    cosine: mean, between the student's embedding and the teacher's. pairs: root mean squared difference of the cosines
    of pairs of crops.
    """

    crops: int
    cosine: float
    pairs: float


class Distiller:
    """The state of a run and its steps. `run` does all that is left; `save` and `load` carry it over a kill."""

    def __init__(
        self, student: MobileFaceNet, teacher: TeacherLike, teacher_size: int, crops: CropStore, recipe: Recipe
    ) -> None:
        self.recipe = recipe
        self.student = student.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.crops = crops
        self.training_crops, self.held_out = crops.split(recipe.hold_out)
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.teacher = teacher
        self._map = embedding_map(student.embedding_size, teacher_size, recipe.seed)
        self._replicas = replicate(self.student, recipe.workers)
        self._pool = ThreadPoolExecutor(recipe.workers, "distill")
        self._start_phase(BLOCKS)

    def _start_phase(self, phase: str) -> None:
        self.phase = phase
        self.step = 0
        parameters = list(self.student.parameters())
        self._optimizer = Muon(parameters)
        self._ema = [parameter.detach().clone() for parameter in parameters]

    def begin_from(self, weights: MobileFaceNet) -> None:
        """Leaves the first phase out: the second begins from finished weights, equalised or not, of this teacher.

        The seed must be theirs, for it decides how the teacher's embedding is lifted. Raises InputError where the
        weights are of another form, or answer nothing like the teacher.
        """
        if (weights.embedding_size, weights.activation) != (self.student.embedding_size, self.student.activation):
            raise InputError(
                f"weights to begin from: {weights.embedding_size}-d with {weights.activation}, where this run trains "
                f"{self.student.embedding_size}-d with {self.student.activation}"
            )
        self.student.load_state_dict(weights.state_dict())
        first = [(to_student(pixels), self.teacher(pixels)) for pixels in self._first_crops(MEASURED_BATCHES)]
        fit_stage_scales(self.student, first)
        fit_mean(self.student, ((x, normalize(answer.embedding @ self._map.T, dim=1)) for x, answer in first))
        copy_statistics(self._replicas)
        self._start_phase(WHOLE)
        cosine = self.agreement().cosine
        if cosine < LIKE_THE_TEACHER:
            raise InputError(
                f"weights to begin from: their cosine to the teacher's answers is {cosine:.3f}; they must come from "
                "this teacher, with the same --seed"
            )

    @property
    def phase_steps(self) -> int:
        """Blocks of the first phase where it is under way; otherwise steps of the second."""
        return len(STEPS) if self.phase == BLOCKS else self.recipe.steps

    @property
    def late(self) -> bool:
        """Whether the second phase is past its middle."""
        return 2 * self.step >= self.recipe.steps

    def learn_blocks(self) -> Iterator[dict[str, float]]:
        """The first phase from block `step` on; the error of each block when it is taught."""
        recipe = self.recipe
        bank = self._fill_bank()
        features = bank.inputs
        for number, name in enumerate(STEPS):
            if number >= self.step:
                lesson = lesson_of(name, recipe.block_steps, recipe.block_lr)
                rng = np.random.default_rng([recipe.seed, 3, number])
                error = learn_block(self.student, name, features, bank, lesson, rng)
                self.step = number + 1
                self._ema = [parameter.detach().clone() for parameter in self.student.parameters()]
                yield {name: error}
            if name != HEAD:
                features = advance(self.student, name, features)
                del bank.blocks[name]

    def _fill_bank(self) -> Bank:
        order = EpochOrder(self.training_crops, CHUNK, self.recipe.seed)
        chunks = -(-self.recipe.bank // CHUNK)
        return fill_bank(chunks * CHUNK, batches(self.crops, order, (self.recipe.seed, 0), range(chunks)), self._answer)

    @torch.no_grad()
    def _answer(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """What the student takes, the teacher's blocks, and the embedding the student is asked for."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16 and self.phase == WHOLE):
            answer = self.teacher(pixels)
        return to_student(pixels), dict(answer.blocks), normalize(answer.embedding.float() @ self._map.T, dim=1)

    def train_step(self, pixels: Tensor) -> dict[str, float]:
        """One update of the second phase from (batch, 3, 112, 112) float32 RGB 0–255; the parts of the loss."""
        shares = pixels.chunk(self.recipe.workers)
        parts = list(self._pool.map(self._backward, self._replicas, shares))
        gather_gradients(self._replicas)
        parameters = list(self.student.parameters())
        torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self._optimizer.step(self.recipe.learning_rate(self.step))
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._ema, parameters, 1.0 - decay)
        self.step += 1
        return {key: sum(part[key] for part in parts) / len(parts) for key in parts[0]}

    def _backward(self, replica: MobileFaceNet, pixels: Tensor) -> dict[str, float]:
        """The gradients of one worker's share of the batch, left in its replica."""
        weights = self.recipe.weights
        x, taught, target = self._answer(pixels)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            outputs, embedding = chain_features(replica, x, run_frozen)
        importance = {name: weights.stages if name in STAGE_ENDS else weights.blocks for name in outputs}
        unit = normalize(embedding.float(), dim=1)
        parts = {name: relative_error(outputs[name], taught[name]) for name, weight in importance.items() if weight}
        loss = sum((importance[name] * part for name, part in parts.items()), torch.zeros(()))
        parts["embedding"] = 1.0 - (unit * target).sum(dim=1).mean()
        parts["relations"] = relational_error(unit, target)
        final = weights.embedding * parts["embedding"] + weights.relations * parts["relations"]
        loss = loss + (weights.late if self.late else 1.0) * final
        replica.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": float(loss.detach())} | {name: float(part.detach()) for name, part in parts.items()}

    def crops_per_second(self) -> float:
        """Measured on the gradients of one batch, from which nothing is learned."""
        pixels = make_batch(self.crops, self.training_crops[:1] * self.recipe.batch, None)
        took = []
        for _ in range(2):  # the first time includes what PyTorch sets up
            began = time.perf_counter()
            list(self._pool.map(self._backward, self._replicas, pixels.chunk(self.recipe.workers)))
            took.append(time.perf_counter() - began)
        for replica in self._replicas:
            replica.zero_grad(set_to_none=True)
        return self.recipe.batch / min(took)

    @property
    def crops_left(self) -> int:
        """Crops to go through the whole network in both phases; those of the first go through one block at a time."""
        whole = self.recipe.steps * self.recipe.batch
        if self.phase == BLOCKS:
            lessons = (lesson_of(name, self.recipe.block_steps, self.recipe.block_lr) for name in STEPS[self.step :])
            return self.recipe.bank + sum(lesson.steps * lesson.batch for lesson in lessons) // len(STEPS) + whole
        return whole - self.step * self.recipe.batch

    def smoothed(self) -> MobileFaceNet:
        """A copy of the student with the averaged weights, for evaluation.

        BatchNorm is held in the second phase: its statistics are part of the function the weights were averaged under.
        """
        student: MobileFaceNet = copy.deepcopy(self.student)
        for parameter, mean in zip(student.parameters(), self._ema, strict=True):
            parameter.data.copy_(mean)
        return student.eval()

    @torch.inference_mode()
    def agreement(self) -> Agreement:
        """How well the smoothed student agrees with the teacher on the crops held out."""
        if len(self.held_out) < 2:
            raise InputError("too few crops are held out to measure on; give crops of more people")
        student = self.smoothed()
        answers: list[Tensor] = []
        targets: list[Tensor] = []
        for start in range(0, len(self.held_out), 32):
            pixels = make_batch(self.crops, self.held_out[start : start + 32], None)
            targets.append(self.teacher(pixels).embedding @ self._map.T)
            answers.append(chain_features(student, to_student(pixels), run_frozen)[1])
        a, b = normalize(torch.cat(answers), dim=1), normalize(torch.cat(targets), dim=1)
        return Agreement(len(a), float((a * b).sum(dim=1).mean()), float(relational_error(a, b).sqrt()))

    def run(self, after_step: Callable[[Distiller, dict[str, float]], None] = lambda *_: None) -> None:
        """All steps that are left, both phases. `after_step` gets the parts of the loss; it logs, saves, may raise."""
        wall, cpu = time.perf_counter() - self.seconds, time.process_time() - self.cpu_seconds
        while self.phase != DONE:
            for parts in self.learn_blocks() if self.phase == BLOCKS else self._learn_whole():
                self.seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
                after_step(self, parts)
            self._finish_phase()

    def _learn_whole(self) -> Iterator[dict[str, float]]:
        # Weights that are given to begin with have seen the order and the augmentations of a run with this seed.
        course = 4 if self.recipe.start else 1
        order = EpochOrder(self.training_crops, self.recipe.batch, self.recipe.seed + course)
        steps = range(self.step, self.recipe.steps)
        for pixels in batches(self.crops, order, (self.recipe.seed, course), steps, self.recipe.spoil):
            yield self.train_step(pixels)

    def _finish_phase(self) -> None:
        if self.phase == BLOCKS:
            copy_statistics(self._replicas)
            self._start_phase(WHOLE)
        else:
            self.student.load_state_dict(self.smoothed().state_dict())
            # A run that is given more steps goes on from these weights, and so must their average.
            self._ema = [parameter.detach().clone() for parameter in self.student.parameters()]
            self.phase = DONE

    def finished(self) -> MobileFaceNet:
        """A copy of the smoothed student, its embedding centred and its channels equalised: what is shipped.

        The student itself stays as it is: it would no longer have the teacher's mean, nor its stages the teacher's
        scale, and a run that is given more steps would learn to undo it.
        """
        student = self.smoothed()
        centre(student, (to_student(pixels) for pixels in self._first_crops(CENTRED_BATCHES)))
        equalise(student, self.augmented())
        return student

    def augmented(self) -> Iterator[Tensor]:
        """Inputs that ranges of activations are measured on: augmented training crops, the same at every call."""
        order = EpochOrder(self.training_crops, CHUNK, self.recipe.seed)
        for step in range(MEASURED_BATCHES):
            rng = np.random.default_rng([self.recipe.seed, 2, step])
            yield to_student(make_batch(self.crops, order.step(step), rng))

    def _first_crops(self, most: int) -> Iterator[Tensor]:
        """Training crops as they are, RGB 0–255: so many batches, or as many as it takes to hold each crop."""
        order = EpochOrder(self.training_crops, CHUNK, self.recipe.seed)
        count = min(most, -(-len(self.training_crops) // CHUNK))
        return (make_batch(self.crops, order.step(step), None) for step in range(count))

    def save(self, path: Path) -> None:
        """Writes the whole state, whole or not at all."""
        state = {
            "recipe": asdict(self.recipe),
            "phase": self.phase,
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "student": self.student.state_dict(),
            "ema": self._ema,
            "optimizer": self._optimizer.state_dict(),
        }
        write_state(state, path)

    def load(self, path: Path) -> None:
        """Goes on from `save`. The recipe may differ in what is not `FIXED`: a shorter tail, another rate.

        A finished run goes on where the recipe has more steps than it made. Raises InputError where a recipe differs in
        what is fixed.
        """
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        mine = asdict(self.recipe)
        changed = [key for key in FIXED if mine[key] != state["recipe"].get(key, getattr(Recipe(), key))]
        if changed:
            raise InputError(f"{path}: was made with other values of {', '.join(changed)}; use them or another folder")
        extended = state["phase"] == DONE and state["step"] < self.recipe.steps
        self._start_phase(WHOLE if extended else state["phase"])
        self.step, self.seconds, self.cpu_seconds = state["step"], state["seconds"], state["cpu_seconds"]
        self.student.load_state_dict(state["student"])
        copy_statistics(self._replicas)
        self._ema = state["ema"]
        self._optimizer.load_state_dict(state["optimizer"])


def to_student(pixels: Tensor) -> Tensor:
    """RGB 0–255 → what MobileFaceNet takes."""
    return (pixels - MEAN) / STD
