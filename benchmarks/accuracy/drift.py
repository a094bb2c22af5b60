"""How far an embedding moves when the precision falls: cosine between a variant's vector and the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.metrics.intervals import bootstrap_interval
from edge.types import Floats

BINS = 40


def measure_drift(
    vectors: Mapping[str, Floats], used: npt.NDArray[np.bool_], references: Mapping[str, str], seed: int = 0
) -> dict[str, Any]:
    """JSON-ready: for each variant the cosine to its reference over `used` rows of the same faces, median and low tail.

    references: label → the label it is compared with, itself where it is one; the first is the report's baseline.
    `identical` counts the faces whose embedding did not change at all.
    """
    variants = {}
    for label, every in vectors.items():
        reference = references[label]
        if label == reference:
            continue
        base, other = vectors[reference][used].astype(np.float64), every[used]
        cosine = np.clip(np.einsum("ij,ij->i", base, other.astype(np.float64)), -1.0, 1.0)
        median = (
            bootstrap_interval(cosine, lambda draws: np.median(draws, axis=1), seed=seed).to_dict()
            if len(cosine) > 1
            else None
        )
        counts, edges = np.histogram(cosine, bins=BINS, range=(float(np.floor(cosine.min() * 200) / 200), 1.0))
        variants[label] = {
            "reference": reference,
            "faces": len(cosine),
            "median": median,
            "p5": float(np.quantile(cosine, 0.05)),
            "p1": float(np.quantile(cosine, 0.01)) if len(cosine) >= 200 else None,
            "minimum": float(cosine.min()),
            "identical": int((other == vectors[reference][used]).all(axis=1).sum()),
            "histogram": {"counts": counts.tolist(), "edges": [round(float(edge), 6) for edge in edges]},
        }
    return {"baseline": next(iter(references)), "faces": int(used.sum()), "variants": variants}
