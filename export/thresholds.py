"""The threshold of each variant: fitted on its own scores, because rounding moves impostor scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.manifest import Threshold
from edge.metrics.scores import all_pair_scores, pair_counts
from edge.metrics.verification import tar_at_far, threshold_at_far
from edge.types import Floats

DEFAULT_FAR = 1e-3


def fit_threshold(
    embeddings: Floats, labels: npt.NDArray[np.int64], far: float, source: str
) -> tuple[Threshold, dict[str, Any] | None]:
    """The lowest cosine at which at most `far` of all impostor pairs are accepted, and the TAR there with its interval.

    embeddings: (N, D) unit rows of the variant. Raises InputError where there are fewer than 1 / far impostor pairs.
    """
    genuine, impostors = pair_counts(labels)
    if impostors < 1:
        raise InputError(f"{source} show one identity: a threshold needs pairs of different people")
    scores = all_pair_scores(embeddings, labels)
    try:
        similarity = threshold_at_far(scores.impostor, far)
    except InputError as error:
        raise InputError(
            f"{source}: {error}; name a folder of more people with --pairs-from, or a higher --far"
        ) from error
    threshold = Threshold(float(np.clip(similarity, -1.0, 1.0)), far, impostors, source)
    tar = tar_at_far(scores.genuine, scores.impostor, far).tar if genuine else None
    return threshold, None if tar is None else {"far": far, **tar.to_dict()}


def card_threshold(card: Path, precision: str) -> Threshold | None:
    """The threshold a weights' card states for a precision, or for all; None where it states none.

    The entry is `"thresholds": {"fp32": {"similarity": …, "far": …, "pairs": …, "source": …}, …}`, or one
    `"threshold"`. Raises InputError where the card cannot be read.
    """
    try:
        values: Any = json.loads(card.read_text(encoding="utf-8"))
        entry = (values.get("thresholds") or {}).get(precision) or values.get("threshold")
        if not isinstance(entry, dict) or "similarity" not in entry:
            return None
        far, pairs = float(entry.get("far", DEFAULT_FAR)), int(entry.get("pairs", 0))
        source = f"{entry.get('source', 'fitted in training')} (from the card of the weights)"
        return Threshold(float(entry["similarity"]), far, pairs, source)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{card}: cannot be read as a card ({error})") from error
