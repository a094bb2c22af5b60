"""What a run tells while it goes on, and what it leaves on disk: log, checkpoint, snapshots."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from training.checkpoint import save_embedder
from training.distill.run import BLOCKS, DONE, Distiller

CHECKPOINT = "checkpoint.pt"
SNAPSHOT = "snapshot.safetensors"
PRINT_EVERY = 20.0
"""Seconds."""


class Journal:
    """Called after every step. Writes `log.txt`, the checkpoint and the snapshots to one folder.

    save_every, evaluate_every: seconds between checkpoints and between snapshots (the smoothed student's weights, and
    its agreement with the teacher on the crops held out).
    """

    def __init__(self, distiller: Distiller, folder: Path, save_every: float, evaluate_every: float) -> None:
        self._folder = folder
        self._save_every = save_every
        self._evaluate_every = evaluate_every
        self._saved = self._evaluated = self._printed = time.monotonic()
        self._sums: dict[str, float] = {}
        self._steps = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.line(f"{len(distiller.training_crops)} crops to learn from, {len(distiller.held_out)} held out")
        self.line(f"{distiller.phase}, step {distiller.step} of {distiller.phase_steps}")
        if distiller.phase != DONE:
            rate, crops = distiller.crops_per_second(), distiller.crops_left
            self.line(f"{crops} crops to go, at {rate:.0f} a second: about {crops / rate / 60:.0f} minutes")

    def line(self, text: str) -> None:
        """One line, with the time (UTC), to the terminal and to `log.txt`."""
        text = f"{time.strftime('%H:%M:%S', time.gmtime())} {text}"
        print(text, flush=True)
        with (self._folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def __call__(self, distiller: Distiller, parts: dict[str, float]) -> None:
        """After a step: `parts` are the parts of its loss."""
        self._steps += 1
        for key, value in parts.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        now = time.monotonic()
        last = distiller.phase == BLOCKS or distiller.step == distiller.phase_steps
        if last or now - self._printed >= PRINT_EVERY:
            self._print(distiller, now)
        if last or now - self._saved >= self._save_every:
            distiller.save(self._folder / CHECKPOINT)
            self._saved = time.monotonic()
        if now - self._evaluated >= self._evaluate_every:
            self.snapshot(distiller)
            self._evaluated = time.monotonic()

    def finish(self, distiller: Distiller) -> None:
        """After the last step."""
        self.snapshot(distiller)
        distiller.save(self._folder / CHECKPOINT)
        self.line(f"done after {distiller.seconds / 60:.1f} minutes, {distiller.cpu_seconds / 60:.1f} of a processor's")

    def snapshot(self, distiller: Distiller) -> None:
        """The smoothed student as it stands, and how well it agrees with the teacher."""
        save_embedder(self._folder / SNAPSHOT, distiller.smoothed())
        if len(distiller.held_out) > 1:
            self.line(f"held out: {json.dumps(asdict(distiller.agreement()))}")

    def _print(self, distiller: Distiller, now: float) -> None:
        if distiller.phase == BLOCKS:
            done = " ".join(f"{name} {error:.4f}" for name, error in self._sums.items())
            self.line(f"{distiller.phase} {distiller.step}/{distiller.phase_steps} error {done}")
            self._printed, self._steps, self._sums = now, 0, {}
            return
        rate = self._steps * distiller.recipe.batch / max(now - self._printed, 1e-9)
        left = (distiller.phase_steps - distiller.step) * distiller.recipe.batch / rate
        means = " ".join(f"{key} {value / self._steps:.4f}" for key, value in self._sums.items())
        self.line(
            f"{distiller.phase} {distiller.step}/{distiller.phase_steps} {rate:.1f} crops/s {left / 60:.1f} min left "
            f"rate {distiller.recipe.learning_rate(distiller.step):.2e} {means}"
        )
        self._printed, self._steps, self._sums = now, 0, {}
