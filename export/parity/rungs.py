"""Which rungs there are: what a checkpoint gives, what a bundle holds, and the engines of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, load_model_from_string

from edge.bundle import Bundle, runs_on
from edge.contract import ModelContract, Role
from edge.engines import ENGINES, REMOTE_ENGINES, get_engine
from edge.errors import BundleError
from edge.types import Image
from edge.weights.digests import digest_of
from export.graph import Array
from export.parity.ladder import Rung

PORTABLE = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Ladder:
    """A role's rungs, the contract they share, and what could not be climbed, in words."""

    contract: ModelContract
    rungs: tuple[Rung, ...]
    notes: tuple[str, ...]


def ladder_of(bundle: Bundle, role: Role, checkpoint: Path | None = None) -> Ladder:
    """torch → onnx → fp32 → fp16, int8 → the other engines. checkpoint: of the embedder, for the first two.

    Raises BundleError where the bundle has no FP32 of the role, InputError where the checkpoint does not fit it.
    """
    variants = bundle.variants(role)
    if not any(variant.precision == "fp32" for variant in variants):
        raise BundleError(f"{bundle.path}: has no FP32 {role} to compare with; export it again with --precision fp32,…")
    rungs, notes = list[Rung](), list[str]()
    if checkpoint is not None:
        rungs += _from_checkpoint(checkpoint)
        recorded = bundle.manifest.provenance.get(role, {})
        if recorded.get("sha256") != digest_of(checkpoint):
            notes.append(f"{checkpoint.name} is not the file the bundle was made from ({recorded.get('file')})")
    models: dict[str, tuple[ModelProto, str, str]] = {}
    for variant in sorted(variants, key=lambda variant: variant.precision != "fp32"):
        model = load_model_from_string(bundle.load(variant))
        on = rungs[-1].name if rungs else None
        below = on if variant.precision == "fp32" else f"{role}-fp32"
        rungs.append(Rung(variant.name, below, variant.precision, PORTABLE, model))
        models[variant.name] = (model, variant.precision, variant.engine)
    for engine in [name for name in ENGINES if name != PORTABLE and name not in REMOTE_ENGINES]:
        if missing := get_engine(engine).available():
            notes.append(f"{engine}: not climbed; {missing}")
            continue
        for name, (model, precision, family) in models.items():
            if engine == "openvino-bf16" and precision == "fp32":
                continue  # float layers in bf16 answer to the bounds of FP16
            if runs_on(family, precision, engine):
                # Eight bits on two engines round differently; both answer to FP32.
                on = f"{role}-fp32" if precision == "int8" else name
                rungs.append(Rung(f"{name} {engine}", on, precision, engine, model))
    return Ladder(variants[0].contract, tuple(rungs), tuple(notes))


def _from_checkpoint(path: Path) -> list[Rung]:
    """The torch network, and its plain export before the rewriting of activations."""
    from export.calibration.photos import synthetic_crops
    from export.parity.torch_values import torch_values
    from export.passes import Passes, embed_preprocessing, l2_normalise
    from export.sources import answers_of, network_input
    from export.to_onnx import embedder_to_onnx
    from training.checkpoint import load_embedder

    network, info = load_embedder(path)
    contract = info.contract

    def values(crops: Image) -> dict[str, Array]:
        return torch_values(network, network_input(crops, contract))

    plain = embedder_to_onnx(network, network_input(synthetic_crops(4), contract), Passes())
    model = l2_normalise(embed_preprocessing(plain, contract))
    return [
        Rung("torch", None, "fp32", "torch", None, answers_of(network, contract), values),
        Rung("onnx", "torch", "fp32", PORTABLE, model),
    ]
