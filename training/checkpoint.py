"""Checkpoints of MobileFaceNet: ours are safetensors with metadata; those of the original pipeline load unchanged.

A `.pth` or `.path` is a pickle; it is read with `weights_only=True`, which builds tensors and runs nothing.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from edge.contract import Color, ModelContract
from edge.errors import ContractError, InputError
from edge.weights.digests import digest_of
from training.mobilefacenet import INPUT_SIZE, Activation, MobileFaceNet

ARCH = "mobilefacenet"
MEAN = STD = 127.5
"""(x − 127.5) / 127.5 takes 0–255 to [−1, 1], for all three channels."""

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_HEAD_KEYS = ("kernel", "weight")
_OTHERS = "another network is exported from ONNX: edge export --onnx FILE --contract FILE.toml"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    format: "safetensors" or "torch". digest: SHA-256 (hex) of the file. metadata: text entries of a safetensors header.
    """

    path: Path
    format: str
    digest: str
    activation: Activation
    embedding_size: int
    color: Color = "rgb"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def contract(self) -> ModelContract:
        """How the network is fed and read, before export puts the preprocessing inside."""
        return embedder_contract(self.embedding_size, self.color)


def embedder_contract(embedding_size: int, color: Color = "rgb") -> ModelContract:
    """The contract of a bare MobileFaceNet: NCHW float32 in [−1, 1], 112×112 ArcFace crops, unit vectors out."""
    return ModelContract(
        role="embedder",
        size=(INPUT_SIZE, INPUT_SIZE),
        color=color,
        layout="nchw",
        dtype="float32",
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        template="arcface-112",
        embedding_size=embedding_size,
        normalised=True,
    )


def load_embedder(path: Path | str) -> tuple[MobileFaceNet, CheckpointInfo]:
    """The network of a checkpoint, on the CPU, in evaluation mode, float32.

    Takes safetensors, and state dicts of TreB1eN/InsightFace_Pytorch and of the original pipeline (`model_*.path`),
    with or without the `module.` that DataParallel writes. Raises InputError for anything else, in one line.
    """
    path = Path(path)
    state, metadata, kind = _read(path)
    if "linear.weight" not in state or state["linear.weight"].ndim != 2:
        if _head_key(state):
            raise InputError(f"{path}: not a MobileFaceNet checkpoint (it holds a head; name the model_* file)")
        raise InputError(f"{path}: not a MobileFaceNet checkpoint (its entries are {_few(state)}); {_OTHERS}")
    activation: Activation = "prelu" if any(name.endswith("prelu.weight") for name in state) else "relu"
    model = MobileFaceNet(int(state["linear.weight"].shape[0]), activation)
    _fill(model, state, path)
    color = metadata.get("color", "rgb")
    if metadata.get("arch", ARCH) != ARCH or color not in ("rgb", "bgr"):
        raise InputError(f"{path}: its metadata says arch {metadata.get('arch')!r}, color {color!r}; {ARCH} is needed")
    digest = digest_of(path)
    info = CheckpointInfo(path, kind, digest, activation, model.embedding_size, cast(Color, color), metadata)
    try:
        _ = info.contract
    except ContractError as error:
        raise InputError(f"{path}: {error}") from error
    return model.eval(), info


def load_head(path: Path | str) -> Tensor:
    """An ArcFace head: (embedding_size, classes) float32, columns not normalised.

    Takes the original pipeline's `head_*.path` (entry `kernel`) and safetensors of `save_head`.
    """
    path = Path(path)
    state, _, _ = _read(path)
    key = _head_key(state)
    if key is None:
        raise InputError(f"{path}: not an ArcFace head: its entries are {_few(state)}, and a head has one 2-D `kernel`")
    kernel = state[key].float()
    # A linear layer's weight is (classes, embedding_size); a kernel is the other way round.
    return (kernel if key == "kernel" else kernel.T).contiguous()


def save_embedder(path: Path, model: MobileFaceNet, metadata: Mapping[str, str] | None = None) -> None:
    """Writes safetensors whose header says how the network is fed; whole or not at all.

    metadata: further text entries (what it was trained on, from which base).
    """
    header = {
        **(metadata or {}),
        "format": "pt",
        "arch": ARCH,
        "activation": model.activation,
        "embedding_size": str(model.embedding_size),
        "color": "rgb",
        "mean": str(MEAN),
        "std": str(STD),
    }
    state = {name: t.detach().float().cpu() if t.is_floating_point() else t.cpu() for name, t in _state(model)}
    _save_safetensors(path, state, header)


def save_head(path: Path, kernel: Tensor, identities: tuple[str, ...]) -> None:
    """Writes a head (embedding_size, classes) beside the names of its columns."""
    header = {"format": "pt", "identities": "\n".join(identities)}
    _save_safetensors(path, {"kernel": kernel.detach().float().cpu()}, header)


def load_head_identities(path: Path) -> tuple[str, ...]:
    """Names of a head's columns, in order; empty where the file does not say."""
    _, metadata, _ = _read(path)
    return tuple(metadata["identities"].split("\n")) if metadata.get("identities") else ()


def _state(model: MobileFaceNet) -> list[tuple[str, Tensor]]:
    # The count of batches is the optimiser's business; leaving it out makes equal weights equal files.
    return [(name, t) for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")]


def _save_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(_canonical(save({name: t.contiguous() for name, t in state.items()}, dict(metadata))))
    part.replace(path)


def _canonical(data: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library writes them in an order that changes from run to
    run, and a checkpoint's digest should not."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a checkpoint (.safetensors, .pth, .pt or .path)")
    if path.suffix == ".onnx":
        raise InputError(f"{path}: not a checkpoint but ONNX; {_OTHERS}")
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file is a length of eight bytes and then a JSON object.
    if len(head) == 9 and head[8:9] == b"{":
        return _read_safetensors(path)
    return _read_torch(path), {}, "torch"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return _stripped(state), dict(file.metadata() or {}), "safetensors"
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged safetensors file ({error}); copy it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a plain state dict of tensors, and nothing else is loaded from a pickle; "
            "save model.state_dict() or a safetensors file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a PyTorch or safetensors checkpoint, or a damaged one") from error
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path}: holds no state dict (names to tensors); save model.state_dict()")
    return _stripped(cast(Mapping[str, Tensor], loaded))


def _stripped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _fill(model: MobileFaceNet, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    if missing := sorted(set(wanted) - set(given)):
        told = f"{len(missing)} entries are missing, {missing[0]} the first"
        raise InputError(f"{path}: not this MobileFaceNet: {told}; {_OTHERS}")
    if extra := sorted(set(given) - set(wanted)):
        told = f"{len(extra)} entries too many, {extra[0]} the first"
        raise InputError(f"{path}: not this MobileFaceNet: {told}; {_OTHERS}")
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(
                f"{path}: {name} is {tuple(tensor.shape)}, and this MobileFaceNet has {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} holds values that are not finite; the training diverged")
    model.load_state_dict(given, strict=False)


def _head_key(state: Mapping[str, Tensor]) -> str | None:
    found = [key for key in _HEAD_KEYS if key in state and state[key].ndim == 2]
    return found[0] if len(state) == 1 and found else None


def _few(state: Mapping[str, Tensor]) -> str:
    names = sorted(state)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
