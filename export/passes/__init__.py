"""Graph passes: one file each, every one a pure function from ModelProto to ModelProto."""

from __future__ import annotations

from export.passes.constants import fold_constants, static_reshapes
from export.passes.embed_preprocessing import bundle_contract, embed_preprocessing
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.l2_normalise import l2_normalise
from export.passes.name_tensors import name_tensors
from export.passes.opset import to_opset
from export.passes.pipeline import Passes, PassRecord
from export.passes.prelu_rewrite import prelu_rewrite

__all__ = [
    "PassRecord",
    "Passes",
    "bundle_contract",
    "embed_preprocessing",
    "fold_batchnorm",
    "fold_constants",
    "l2_normalise",
    "name_tensors",
    "prelu_rewrite",
    "static_reshapes",
    "to_opset",
]
