"""Where a model comes from: a checkpoint of ours through torch, or an ONNX file with a contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto

from edge.align import widen
from edge.contract import ModelContract
from edge.detect.decode import require_heads
from edge.errors import ContractError, InputError
from edge.types import Floats, Image
from edge.weights import find_beside, read_header
from edge.weights.digests import digest_of
from export.calibration.photos import synthetic_crops
from export.graph import Array
from export.passes import Passes, bundle_contract, embed_preprocessing, l2_normalise, prelu_rewrite
from export.passes.l2_normalise import OUTPUT, rename_output

if TYPE_CHECKING:
    from torch import nn

CALIBRATION_SUFFIX = ".calibration.json"
"""`NAME.calibration.json` beside `NAME.safetensors` holds the ranges, and thresholds, of those weights."""

DETECTOR_CONTRACT = ModelContract(role="detector", size=None, color="bgr", layout="nchw", dtype="float32")
"""YuNet's: BGR pixels 0-255 as float32, any multiple of 32."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model ready for its variants.

    float_model: takes pixels (N, H, W, 3) uint8 BGR, computes in float32, gives unit embeddings, a detector's heads or
    a landmarker's landmarks.
    contract: of `float_model`. reference: what the model should give for crops, computed outside of ONNX where there
    is a torch network, else by the imported file itself; embedders only. fed_as, stated: of an imported embedder, the
    bare model fed as any contract would have it, and the contract its user wrote. digest: SHA-256 (hex) of the file.
    """

    path: Path
    digest: str
    kind: str
    float_model: ModelProto
    contract: ModelContract
    reference: Callable[[Image], Floats] | None = None
    fed_as: Callable[[ModelContract, Image], Floats] | None = None
    stated: ModelContract | None = None

    def beside(self, suffix: str) -> Path | None:
        """A file that belongs to the weights; see `edge.weights.find_beside`."""
        return find_beside(self.path, suffix)


def load_embedder_checkpoint(path: Path, passes: Passes) -> Source:
    """A MobileFaceNet checkpoint. Raises InputError for another file, GateError where the graph is not torch's."""
    from export.to_onnx import embedder_to_onnx
    from training.checkpoint import load_embedder

    network, info = load_embedder(path)
    contract = info.contract
    sample = network_input(synthetic_crops(4), contract)
    model = embedder_to_onnx(network, sample, passes)
    answers = answers_of(network, contract)

    model = passes.run("PReLU rewrite", prelu_rewrite, model)
    model = passes.run("preprocessing inside", lambda m: embed_preprocessing(m, contract), model)
    model = passes.run("unit length", l2_normalise, model)
    return Source(path, info.digest, "mobilefacenet", model, bundle_contract(contract, normalised=True), answers)


def answers_of(network: nn.Module, contract: ModelContract) -> Callable[[Image], Floats]:
    """What a torch network answers to (N, 112, 112, 3) uint8 BGR crops, N ≥ 1, as a function: (N, D) float32."""
    import torch

    def answers(crops: Image) -> Floats:
        with torch.inference_mode():
            parts = [
                network(torch.from_numpy(network_input(crops[i : i + 16], contract))).numpy()
                for i in range(0, len(crops), 16)
            ]
        return np.concatenate(parts)

    return answers


def load_embedder_onnx(path: Path, contract_path: Path, passes: Passes) -> Source:
    """A third-party embedder and its contract file. Raises InputError and ContractError in one line."""
    from edge.engines import open_session
    from export.importer import import_embedder, read_onnx

    contract = ModelContract.from_toml(contract_path)
    if contract.role != "embedder":
        raise ContractError(f"{contract_path}: the contract is of a {contract.role}; --onnx takes an embedder")
    original = read_onnx(path)
    imported = import_embedder(original, contract, passes)
    data = imported.SerializeToString()

    def fed_as(candidate: ModelContract, crops: Image) -> Floats:
        with open_session(data) as session:
            name = session.inputs[0].name
            parts = [
                next(iter(session.run({name: network_input(crops[i : i + 16], candidate)}).values()))
                for i in range(0, len(crops), 16)
            ]
        vectors: Floats = np.concatenate(parts).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    model = passes.run("PReLU rewrite", prelu_rewrite, imported)
    if contract.dtype == "float32":
        model = passes.run("preprocessing inside", lambda m: embed_preprocessing(m, contract), model)
    elif (contract.layout, contract.color) != ("nhwc", "bgr"):
        raise ContractError(f"{contract_path}: a uint8 model must take nhwc bgr already; this one does not")
    if contract.normalised:
        model = passes.run("name the output", lambda m: rename_output(m, OUTPUT), model)
    else:
        model = passes.run("unit length", l2_normalise, model)
    bundled = bundle_contract(contract, normalised=True)
    return Source(
        path, digest_of(path), "onnx", model, bundled, lambda crops: fed_as(contract, crops), fed_as, contract
    )


def load_detector(path: Path, passes: Passes) -> Source:
    """A detector: our own checkpoint, or any YuNet ONNX of dynamic size. Raises InputError and ContractError."""
    if path.suffix == ".onnx":
        from export.importer import import_detector, read_onnx

        model = import_detector(read_onnx(path), passes)
        kind = "onnx"
    else:
        from export.to_onnx import detector_to_onnx
        from training.detector.network import HEADS, load

        if read_header(path).get("role") != "detector":
            raise InputError(f"{path}: not a detector's weights; name a YuNet ONNX or a detector checkpoint")
        sample = np.random.default_rng(0).uniform(0, 255, (2, 3, 128, 160)).astype(np.float32)
        model = detector_to_onnx(load(path), sample, HEADS, passes)
        kind = read_header(path).get("arch", "detector")
    require_heads({value.name for value in model.graph.output})
    model = passes.run("PReLU rewrite", prelu_rewrite, model)
    model = passes.run("preprocessing inside", lambda m: embed_preprocessing(m, DETECTOR_CONTRACT), model)
    return Source(path, digest_of(path), kind, model, bundle_contract(DETECTOR_CONTRACT))


def load_landmarker(path: Path, passes: Passes) -> Source:
    """Our own landmarker's checkpoint. Raises InputError for another file, ContractError where it does not fit."""
    from export.to_onnx import landmarker_to_onnx
    from training.landmarker.network import CONTRACT, load

    if read_header(path).get("role") != "landmarker":
        raise InputError(f"{path}: not a landmarker's weights; name those of edge train landmarker, or none")
    sample = network_input(widen(synthetic_crops(4)), CONTRACT)
    model = landmarker_to_onnx(load(path), sample, passes)
    model = passes.run("preprocessing inside", lambda m: embed_preprocessing(m, CONTRACT), model)
    return Source(path, digest_of(path), "edge-landmarker", model, bundle_contract(CONTRACT))


def network_input(crops: Image, contract: ModelContract) -> Array:
    """What the network took before the preprocessing moved into the graph, written out plainly.

    crops: (N, H, W, 3) uint8 BGR. Gives the contract's layout and dtype.
    """
    values: Array = crops[..., ::-1] if contract.color == "rgb" else crops
    if contract.dtype == "float32":
        mean, std = np.array(contract.mean, np.float32), np.array(contract.std, np.float32)
        values = (values.astype(np.float32) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if contract.layout == "nchw" else values)
