"""What each precision may differ from what it was made from: stated before anything is run."""

from __future__ import annotations

from export.request import MIN_AGREEMENT, MIN_COSINE

MIN_COSINE_SAME = 0.99999
"""Least mean cosine between two float32 graphs or engines that compute one function."""

MIN_AGREEMENT_SAME = 0.999
"""Least agreement of detections between two such."""

MAX_LAYER_ERROR = {"fp32": 1e-4, "fp16": 3.5e-2, "int8": 0.25}
"""Most that one layer, fed with the original's values, may be off, as a share of its norm.

Measured on the default weights: float32 4e-7 between engines; half precision 9e-4, and 0.016 in the global depthwise
layer, whose 49 products nearly cancel, so that their rounding is large beside their sum (the embedding's cosine is
0.99995 all the same); eight bits 0.02 to 0.08, most in
depthwise layers, and 0.15 where a CPU without VNNI lets OpenVINO's sums of products saturate. Twice or more of each
leaves room for other weights; a layer whose weights or scales are wrong is off by 0.5 and more.
"""


def least_cosine(precision: str) -> float:
    """Of an embedder rung, mean over the crops."""
    return MIN_COSINE_SAME if precision == "fp32" else MIN_COSINE[precision]


def least_agreement(precision: str) -> float:
    """Of a detector rung."""
    return MIN_AGREEMENT_SAME if precision == "fp32" else MIN_AGREEMENT[precision]
