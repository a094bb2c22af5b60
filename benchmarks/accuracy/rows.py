"""Pieces of a report that both accuracy suites write alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.metrics.intervals import Interval
from edge.metrics.verification import TarAtFar

WORST_IDENTITIES = 15


def far_row(found: TarAtFar, by_identity: Interval | None = None) -> dict[str, Any]:
    """One row of a TAR table; `refusal` says why a FAR has none."""
    return {
        "far": found.far,
        "threshold": found.threshold,
        "tar": None if found.tar is None else found.tar.to_dict(),
        "tar_by_identity": None if by_identity is None else by_identity.to_dict(),
        "far_measured": None if found.far_measured is None else found.far_measured.to_dict(),
        "refusal": found.refusal,
    }


def curve(thresholds: Any, far: Any, frr: Any) -> dict[str, list[float]]:
    """A DET curve with the digits a plot needs."""
    return {
        "threshold": [round(float(value), 5) for value in thresholds],
        "far": [float(f"{value:.4g}") for value in far],
        "frr": [float(f"{value:.4g}") for value in frr],
    }


def identity_errors(people: npt.NDArray[Any], correct: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Wrong trials by person: the worst of them by name, and how many people have any."""
    names, codes, trials = np.unique(people, return_inverse=True, return_counts=True)
    wrong = {
        label: np.bincount(codes, weights=~right, minlength=len(names)).astype(int) for label, right in correct.items()
    }
    total = np.sum(list(wrong.values()), axis=0)
    order = np.lexsort((names, -total))
    worst = [i for i in order[:WORST_IDENTITIES] if total[i]]
    return {
        "identities": len(names),
        "with_errors": {label: int((count > 0).sum()) for label, count in wrong.items()},
        "worst": [
            {
                "identity": str(names[i]),
                "trials": int(trials[i]),
                "wrong": {label: int(count[i]) for label, count in wrong.items()},
            }
            for i in worst
        ],
    }
