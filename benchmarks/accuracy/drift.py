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
    vectors: Mapping[str, Floats], used: npt.NDArray[np.bool_], baseline: str, seed: int = 0
) -> dict[str, Any]:
    """JSON-ready: for each variant but the baseline the cosine over `used` rows of the same faces, median and low tail.

    `identical` counts the faces whose embedding did not change at all.
    """
    base = vectors[baseline][used].astype(np.float64)
    variants = {}
    for label, every in vectors.items():
        other = every[used]
        if label == baseline or other.shape != base.shape:
            continue
        cosine = np.clip(np.einsum("ij,ij->i", base, other.astype(np.float64)), -1.0, 1.0)
        median = (
            bootstrap_interval(cosine, lambda draws: np.median(draws, axis=1), seed=seed).to_dict()
            if len(cosine) > 1
            else None
        )
        counts, edges = np.histogram(cosine, bins=BINS, range=(float(np.floor(cosine.min() * 200) / 200), 1.0))
        variants[label] = {
            "faces": len(cosine),
            "median": median,
            "p5": float(np.quantile(cosine, 0.05)),
            "p1": float(np.quantile(cosine, 0.01)) if len(cosine) >= 200 else None,
            "minimum": float(cosine.min()),
            "identical": int((other == vectors[baseline][used]).all(axis=1).sum()),
            "histogram": {"counts": counts.tolist(), "edges": [round(float(edge), 6) for edge in edges]},
        }
    return {"baseline": baseline, "faces": int(used.sum()), "variants": variants}
