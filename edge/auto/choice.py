"""What `auto` decided and why, and where that is kept."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import __version__
from edge.engine_cache import EngineCache

FORMAT = "arcedge-engine-choice"
VERSION = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """One engine. problem: why it cannot be chosen, None where it can. there: whether this machine has it.

    cosine, error: see `edge.auto.trial`; None where it was not run. milliseconds: of a frame with one face.
    """

    engine: str
    problem: str | None
    cosine: float | None = None
    error: float | None = None
    milliseconds: float | None = None
    there: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to take. precision: of the embedder. measured: when, ISO 8601.

    detector_engine, detector_precision: for the detector, which may be another. milliseconds: of a frame with one face.
    remembered: whether it was measured before, for this bundle, machine and these engine versions.
    """

    engine: str
    precision: str
    detector_engine: str
    detector_precision: str
    milliseconds: float
    trials: tuple[Trial, ...]
    measured: str
    remembered: bool = False

    @property
    def words(self) -> str:
        """One line for the user."""
        alone = (self.detector_engine, self.detector_precision) == (self.engine, self.precision)
        others = [
            trial
            for trial in self.trials
            if trial.milliseconds is not None and not (alone and trial.engine == self.engine)
        ]
        against = ", ".join(f"{trial.engine} {trial.milliseconds:.1f}" for trial in others)
        line = f"engine auto: {self.engine}"
        if not alone:
            line += f" ({self.precision}), detector on {self.detector_engine} ({self.detector_precision})"
        line += f", {self.milliseconds:.1f} ms a frame with one face"
        line += f" (against {against})" if against else ", the only one that passes here"
        line += f", measured {self.measured}" if self.remembered else ", measured now"
        line += "".join(f"; {trial.engine}: {trial.problem}" for trial in self.trials if trial.problem and trial.there)
        absent = ", ".join(trial.engine for trial in self.trials if not trial.there)
        return f"{line}; not here: {absent} (see edge doctor)" if absent else line

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = asdict(self)
        del values["remembered"]
        return {"format": FORMAT, "version": VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Choice:
        """A remembered choice. Raises ValueError, KeyError or TypeError for what is none."""
        if (values["format"], values["version"]) != (FORMAT, VERSION):
            raise ValueError("of another format or version")
        trials = tuple(Trial(**entry) for entry in values["trials"])
        choice = cls(
            engine=str(values["engine"]),
            precision=str(values["precision"]),
            detector_engine=str(values["detector_engine"]),
            detector_precision=str(values["detector_precision"]),
            milliseconds=float(values["milliseconds"]),
            trials=trials,
            measured=str(values["measured"]),
            remembered=True,
        )
        tried = {trial.engine for trial in trials if trial.milliseconds}
        if not {choice.engine, choice.detector_engine} <= tried:
            raise ValueError("it was never tried")
        return choice


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Everything a choice depends on. bundle: its digest; engines: version, or why it is not there, by name."""

    bundle: str
    precision: str | None
    threads: int
    engines: Mapping[str, str]
    machine: str

    def key(self) -> str:
        """SHA-256 (hex)."""
        text = json.dumps({**asdict(self), "arcedge": __version__, "format": VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def recall(cache: EngineCache, circumstances: Circumstances) -> Choice | None:
    """The choice made before in these circumstances; None where there is none, or none that can be read."""
    try:
        return Choice.from_dict(json.loads(_path(cache, circumstances).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(cache: EngineCache, circumstances: Circumstances, choice: Choice) -> None:
    """Keeps a choice. Raises EngineError where the cache cannot be written."""
    cache.write(_path(cache, circumstances), (json.dumps(choice.to_dict(), indent=1) + "\n").encode())


def this_machine() -> str:
    """Processor, what it computes with, and the cores this process may use, in a line."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        info = ""
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    digest = hashlib.sha256(flags.group(1).encode() if flags else b"").hexdigest()[:8]
    return f"{model.group(1) if model else platform.machine()}, {cores} cores, features {digest}, {platform.system()}"


def _path(cache: EngineCache, circumstances: Circumstances) -> Path:
    return cache.folder / f"auto-{circumstances.key()[:32]}.json"
