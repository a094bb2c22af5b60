"""The safetensors file of a network that ships: written whole or not at all, read back only as what it says it is."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from edge.errors import ContractError, InputError


def save_network(network: nn.Module, path: Path, *, role: str, arch: str, steps: int, seed: int) -> None:
    """Writes the weights; the metadata names role, architecture and how they came to be."""
    metadata = {"role": role, "arch": arch, "steps": str(steps), "seed": str(seed), "format": "pt"}
    weights = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(weights, partial, metadata)
    partial.replace(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a weights file. Raises InputError where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a safetensors file that can be read ({error})") from error


def load_into(network: nn.Module, path: Path, *, role: str, arch: str) -> None:
    """Gives a network the weights of a file.

    Raises InputError for an unreadable file, ContractError where it holds another network.
    """
    metadata = read_metadata(path)
    if metadata.get("role") != role or metadata.get("arch") != arch:
        raise ContractError(f"{path}: holds {json.dumps(metadata)}; the weights of a {role} {arch} are needed")
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ContractError(f"{path}: its tensors do not fit {arch}; train it again") from error
