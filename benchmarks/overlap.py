"""Evaluation pictures that the models have seen make a figure a lie: found by digest, and refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.errors import InputError
from edge.pictures import find_pictures


def check_overlap(bundle: Bundle, evaluation: Mapping[str, str], not_in: Sequence[Path]) -> dict[str, Any]:
    """Compares evaluation pictures (digest by name) with those the bundle was calibrated on and those of `not_in`.

    A manifest that lists the digests of its calibration pictures is checked against them; folders the user names
    with --not-in always are. Raises InputError where a picture is in both.
    """
    if not evaluation:
        return {"checked": False, "compared": 0, "statement": None}
    seen = dict.fromkeys(_calibration_digests(bundle.manifest.provenance), "the calibration set of the bundle")
    listed = len(seen)
    for folder in not_in:
        for path in find_pictures([folder]):
            seen[hashlib.sha256(path.read_bytes()).hexdigest()] = str(folder)
    shared = {name: seen[digest] for name, digest in evaluation.items() if digest in seen}
    if shared:
        name, where = next(iter(shared.items()))
        raise InputError(
            f"{len(shared):,} of {len(evaluation):,} evaluation pictures are in {where}, first {name}; "
            "accuracy on them would be a lie: evaluate on pictures the models have not seen"
        )
    if not seen:
        return {
            "checked": False,
            "compared": 0,
            "statement": "Overlap of the evaluation pictures with training and calibration was not checked: the "
            "manifest lists no picture digests. Name those folders with --not-in.",
        }
    source = "the bundle's calibration pictures" if listed else "the folders named with --not-in"
    if listed and not_in:
        source += " and the folders named with --not-in"
    statement = f"None of {len(evaluation):,} evaluation pictures is byte for byte among the {len(seen):,} of {source}."
    return {"checked": True, "compared": len(seen), "statement": statement}


def _calibration_digests(provenance: Any) -> Iterator[str]:
    """Picture digests anywhere under `calibration`, as lists named `files` or `pictures`."""
    calibration = provenance.get("calibration") if isinstance(provenance, Mapping) else None
    entries = calibration.values() if isinstance(calibration, Mapping) else ()
    for entry in [calibration, *entries]:
        if isinstance(entry, Mapping):
            for name in ("files", "pictures"):
                listed = entry.get(name)
                if isinstance(listed, list):
                    yield from (str(digest) for digest in listed)
