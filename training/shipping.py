"""The card that goes with weights into `model_weights/`: what can be read off the file is read off the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.weights.cards import CARD_SUFFIX, Figure, read_card
from edge.weights.digests import digest_of

_NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")


def write_shipped_card(
    weights: Path,
    *,
    role: str,
    licence: str,
    data: str,
    figures: Sequence[Figure],
    limits: Sequence[str],
    more: dict[str, Any] | None = None,
) -> Path:
    """Writes `NAME.card.json` beside `NAME.safetensors`, reads it back, and gives its path.

    data: what the weights learned from, in words. more: whatever else is worth keeping (recipe, split, thresholds,
    versions); it cannot replace what every card states. Raises InputError for a file that is no safetensors, and for
    figures that `read_card` would refuse.
    """
    card = {
        "name": weights.stem,
        "role": role,
        "file": weights.name,
        "sha256": digest_of(weights),
        "size": weights.stat().st_size,
        "parameters": count_parameters(weights),
        "licence": licence,
        "data": data,
        "figures": [
            {key: value for key, value in asdict(figure).items() if value not in (None, "") or key == "value"}
            for figure in figures
        ],
        "limits": list(limits),
    }
    path = weights.with_name(weights.stem + CARD_SUFFIX)
    part = path.with_name(f".{path.name}.part")
    entries = card | {key: value for key, value in (more or {}).items() if key not in card}
    part.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
    read_card(path)
    return path


def count_parameters(weights: Path) -> int:
    """Numbers that were learned, from the header of a safetensors file: BatchNorm's running statistics do not count.

    Raises InputError where the file is none.
    """
    try:
        with weights.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(
            prod(tensor["shape"])
            for name, tensor in header.items()
            if name != "__metadata__" and not name.endswith(_NOT_LEARNED)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise InputError(f"{weights}: not a safetensors file that can be read ({error})") from error
