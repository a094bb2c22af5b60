"""The card of trained weights: what they learned from, how, what was measured, and where it was done."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from edge import __version__
from training.data import Dataset
from training.recipe import EpochRow

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "safetensors", "onnxruntime")


def versions() -> dict[str, str]:
    """Of this project, Python and what the figures may depend on."""
    found = {"arcedge": __version__, "python": platform.python_version()}
    return found | {package: number for package in _PACKAGES if (number := _version(package))}


def machine(device: torch.device) -> dict[str, Any]:
    """Where it ran: processor, threads, device. No host name, no path."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"processor": _processor(), "system": platform.system(), "threads": torch.get_num_threads(), "device": name}


def command() -> str:
    """The command line of this process, for a card: of a path its last two parts, so that no machine shows."""
    return " ".join(["edge", *(_short(word) for word in sys.argv[1:])])


def _short(word: str) -> str:
    path = Path(word)
    word = "/".join(path.parts[-2:]) if path.is_absolute() else word
    return shlex.quote(word)


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Name, digest and counts of a data set, and what was passed over."""
    return {
        "name": dataset.root.name,
        "sha256": dataset.digest,
        "photos": len(dataset.photos),
        "identities": dataset.counts(),
        "passed_over": list(dataset.warnings),
    }


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Writes the card as JSON, whole or not at all."""
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_history(path: Path, history: list[EpochRow]) -> None:
    """One line an epoch; empty where a figure does not exist, as the loss of epoch 0."""
    names = [field.name for field in fields(EpochRow)]
    lines = [",".join(names)]
    for row in history:
        values = asdict(row)
        shown = ("" if math.isnan(values[name]) else f"{values[name]:.6g}" for name in names)
        lines.append(",".join(shown))
    part = path.with_name(f".{path.name}.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(path)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
