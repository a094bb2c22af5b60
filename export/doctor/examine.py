"""The whole examination: look at the photos once, then ask every check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.types import Floats
from export.agreement import embed_with
from export.calibration.calibrate import MIN_PICTURES
from export.doctor import checks
from export.doctor.colour import colour_order
from export.doctor.duplicates import find_pairs, grouped
from export.doctor.findings import Diagnosis, Finding
from export.doctor.stability import Stability, range_stability
from export.doctor.survey import Look, Survey, survey
from export.photos import Finder
from export.plausibility import separation
from export.sources import Source

ORDER = ("fatal", "warning", "note", "ok")


@dataclass(frozen=True, slots=True)
class Examination:
    """What `examine` gives: the diagnosis, and the stability for its plot; None where there were too few photos."""

    diagnosis: Diagnosis
    stability: Stability | None = field(default=None)


def examine(
    folder: Path, embedder: Source, finder: Finder, not_in: Sequence[Path] = (), *, quiet: bool = False
) -> Examination:
    """Examines calibration photos for these models. not_in: folders or ZIPs of evaluation pictures.

    Raises InputError where a place cannot be read.
    """
    with finder.open() as opened:
        own = survey(folder, opened, quiet=quiet)
        others = [survey(place, opened, quiet=quiet) for place in not_in]
    looks, faces = own.looks, own.with_face
    rows = _embedded(embedder, looks)
    pairs = find_pairs(looks, rows)
    order = colour_order([look.crop for look in faces if look.crop is not None])
    distinct = _distinct(looks, grouped(len(looks), pairs))
    findings = [checks.usable(own, len(distinct)), checks.faceless(own), checks.constant(own), checks.crowded(own)]
    if faces:
        findings += [check(faces) for check in (checks.tiny, checks.blurred, checks.pose, checks.light)]
        findings.append(checks.colours(faces, order))
    findings += [checks.exact_duplicates(looks, pairs), checks.near_duplicates(looks, pairs)]
    for other in others:
        findings.append(_leakage(own, rows, other, embedder))
    figures: dict[str, Any] = {}
    if faces:
        figures["separation"] = _separations(embedder, faces, rows[[look.crop is not None for look in looks]])
    stability = None
    if len(distinct) >= MIN_PICTURES:
        stability = range_stability(embedder.float_model, np.stack(distinct), quiet=quiet)
        findings.append(checks.steadiness(stability))
        figures["stability"] = stability.to_dict()
    ordered = tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))
    return Examination(Diagnosis(str(folder), len(looks), len(faces), ordered, figures), stability)


def _leakage(own: Survey, rows: Floats, other: Survey, embedder: Source) -> Finding:
    pairs = find_pairs(own.looks, rows, other.looks, _embedded(embedder, other.looks))
    return checks.leakage(str(other.place), own.looks, other.looks, pairs)


def _embedded(embedder: Source, looks: Sequence[Look]) -> Floats:
    """(N, D) unit rows, zero where there is no face."""
    size = embedder.contract.embedding_size or 1
    rows = np.zeros((len(looks), size), np.float32)
    places = [i for i, look in enumerate(looks) if look.crop is not None]
    crops = [look.crop for look in looks if look.crop is not None]
    if crops:
        rows[places] = embed_with(embedder.float_model.SerializeToString(), embedder.contract, np.stack(crops))
    return rows


def _separations(embedder: Source, faces: Sequence[Look], rows: Floats) -> dict[str, float]:
    """d' of the people as the pictures are, and with red and blue exchanged: the embedder's word on colour order."""
    names = np.array([look.identity for look in faces])
    same = names[:, None] == names[None]
    swapped = np.stack([np.ascontiguousarray(look.crop[..., ::-1]) for look in faces if look.crop is not None])
    other = embed_with(embedder.float_model.SerializeToString(), embedder.contract, swapped)
    return {
        "as_stored": round(separation(rows @ rows.T, same), 4),
        "red_and_blue_exchanged": round(separation(other @ other.T, same), 4),
    }


def _distinct(looks: Sequence[Look], groups: Sequence[tuple[int, ...]]) -> list[Any]:
    """A crop of each photo, once."""
    again = {i for group in groups for i in group[1:]}
    return [look.crop for i, look in enumerate(looks) if look.crop is not None and i not in again]
