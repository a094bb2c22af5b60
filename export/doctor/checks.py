"""One function a check: from what was seen of the photos to a finding that says what to do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.quality import BLURRED, SMALL_FACE
from export.calibration.calibrate import MIN_PHOTOS
from export.doctor.colour import ColourOrder
from export.doctor.duplicates import FLAT, Pair, grouped
from export.doctor.findings import Finding
from export.doctor.stability import ENOUGH, Stability
from export.doctor.survey import CHEEKS, Look, Survey

TURNED_SIDE = 0.15
"""How far the nose stands from the middle between the eyes, as a share of their distance, in a turned face."""

DARK, BRIGHT = 80.0, 170.0
"""Mean grey value (0-255) of a face below and above which it counts as dark and bright."""

COVERED = 0.03
"""Share of the faces a condition needs to count as covered."""

MANY = 0.2
"""Share of pictures from which a blemish is one of the set, not of some pictures in it."""


def usable(survey: Survey, distinct: int) -> Finding:
    """Files that are no pictures, and whether there are enough with a face. distinct: photos with one, copies once."""
    found, faces = len(survey.looks), len(survey.with_face)
    unreadable = f"{len(survey.unreadable)} files named as pictures cannot be read" if survey.unreadable else ""
    if distinct < MIN_PHOTOS:
        # Said here as well: what cannot be read is no picture without a face, and may be all that is wrong.
        copies = f", of {distinct} photos" if distinct < faces else ""
        seen = f"{faces} pictures with a face{copies}{unreadable and f'; {unreadable}'}"
        remedy = "replace what cannot be read, or add photos" if unreadable else "add photos"
        return Finding("fatal", "photos", seen, f"{MIN_PHOTOS} is the least; {remedy}", survey.unreadable)
    if unreadable:
        return Finding("warning", "photos", unreadable, "replace or delete them", survey.unreadable)
    return Finding("ok", "photos", f"{found} pictures, all can be read")


def faceless(survey: Survey) -> Finding:
    """Pictures in which no face is found, those of one colour apart."""
    names = tuple(look.name for look in survey.looks if look.crop is None and look.spread >= FLAT)
    if not survey.looks:
        return Finding("fatal", "faces", "no picture could be read, so none was looked for", "see photos")
    if not names:
        return Finding("ok", "faces", "every picture shows one")
    grave = 2 * len(names) > len(survey.looks)
    return Finding(
        "fatal" if grave else "warning",
        "faces",
        f"no face found in {len(names)} of {len(survey.looks)}",
        "the embedder is not calibrated on them; take them out, or photos with more room around the face",
        names,
    )


def constant(survey: Survey) -> Finding:
    """Pictures of one colour."""
    names = tuple(look.name for look in survey.looks if look.spread < FLAT)
    if not names:
        return Finding("ok", "constant", "no picture is of one colour")
    return Finding("warning", "constant", f"{len(names)} pictures show one colour", "delete them", names)


def crowded(survey: Survey) -> Finding:
    """Pictures with several faces."""
    names = tuple(look.name for look in survey.looks if look.faces > 1)
    if not names:
        return Finding("ok", "several faces", "no picture shows more than one")
    return Finding(
        "note",
        "several faces",
        f"{len(names)} pictures show more than one face",
        "the largest near the middle is taken; check that it is the person of the folder",
        names,
    )


def tiny(faces: Sequence[Look]) -> Finding:
    """Faces of few pixels, which the crop enlarges."""
    names = tuple(look.name for look in faces if look.quality is not None and look.quality.size < SMALL_FACE)
    if not names:
        return Finding("ok", "size", f"every face is {SMALL_FACE:g} pixels or larger")
    severe = len(names) > MANY * len(faces)
    seen = f"{len(names)} of {len(faces)} faces are smaller than {SMALL_FACE:g} pixels"
    return Finding("warning" if severe else "note", "size", seen, "take larger photos, or leave these out", names)


def blurred(faces: Sequence[Look]) -> Finding:
    """Faces out of focus, moved, or enlarged."""
    names = tuple(look.name for look in faces if look.quality is not None and look.quality.sharpness < BLURRED)
    if not names:
        return Finding("ok", "blur", "every face is sharp")
    severe = len(names) > MANY * len(faces)
    seen = f"{len(names)} of {len(faces)} faces are blurred (variance of the Laplacian below {BLURRED:g})"
    advice = "ranges from soft faces come out narrow, and clip sharp ones; add sharp photos"
    return Finding("warning" if severe else "note", "blur", seen, advice if severe else "some are fine", names)


def pose(faces: Sequence[Look]) -> Finding:
    """Whether faces turned to either side are among them."""
    sides = np.array([_side(look) for look in faces])
    shares = {
        "turned to the left": float((sides < -TURNED_SIDE).mean()),
        "straight": float((np.abs(sides) <= TURNED_SIDE).mean()),
        "turned to the right": float((sides > TURNED_SIDE).mean()),
    }
    return _coverage("pose", shares, "add photos of people who look that way")


def light(faces: Sequence[Look]) -> Finding:
    """Whether dark and bright faces are among them; tone of skin and light both count, as a network sees both."""
    grey = np.array([float(look.crop[CHEEKS].mean()) for look in faces if look.crop is not None])
    shares = {
        "dark": float((grey < DARK).mean()),
        "medium": float(((grey >= DARK) & (grey <= BRIGHT)).mean()),
        "bright": float((grey > BRIGHT).mean()),
    }
    return _coverage("light", shares, "add photos in such light, as the camera will meet it")


def colours(faces: Sequence[Look], order: ColourOrder) -> Finding:
    """Red and blue exchanged, in most pictures or in some."""
    names = tuple(faces[i].name for i in order.bluish)
    said = f"{len(names)} of {order.coloured} faces in colour have skin bluer than red"
    if order.exchanged:
        return Finding(
            "fatal",
            "colour order",
            f"{said}: red and blue are exchanged",
            "something wrote BGR as RGB (cv2.imwrite of an RGB array); write the pictures again",
            names,
        )
    if not order.coloured:
        return Finding(
            "note", "colour order", "all pictures are grey: their order cannot be told", "add some in colour"
        )
    if names:
        advice = "look at them: exchanged red and blue, or coloured light"
        severe = len(names) > 0.05 * order.coloured
        return Finding("warning" if severe else "note", "colour order", said, advice, names)
    return Finding("ok", "colour order", f"skin is redder than blue in all {order.coloured} faces in colour")


def exact_duplicates(looks: Sequence[Look], pairs: Sequence[Pair]) -> Finding:
    """Byte for byte the same file."""
    groups = grouped(len(looks), [pair for pair in pairs if pair.way == "bytes"])
    if not groups:
        return Finding("ok", "exact copies", "no two files are the same")
    return Finding(
        "warning", "exact copies", f"{_extra(groups)} files are copies of another", "delete them", _names(looks, groups)
    )


def near_duplicates(looks: Sequence[Look], pairs: Sequence[Pair]) -> Finding:
    """One photo, encoded or cropped again."""
    groups = grouped(len(looks), [pair for pair in pairs if pair.way != "bytes"])
    if not groups:
        return Finding("ok", "near-duplicates", "no two pictures are one photo")
    distinct = len(looks) - _extra(groups)
    severe = _extra(groups) > MANY * len(looks)
    return Finding(
        "warning" if severe else "note",
        "near-duplicates",
        f"{len(groups)} photos appear more than once, in {sum(map(len, groups))} pictures; {distinct} are distinct",
        "they weigh more than others, and make a set look larger than it is; keep one of each, "
        "and never split them between training and test",
        _names(looks, groups),
    )


def leakage(place: str, looks: Sequence[Look], others: Sequence[Look], pairs: Sequence[Pair]) -> Finding:
    """Photos that are in an evaluation set as well."""
    if not pairs:
        return Finding("ok", "leakage", f"none of {len(others)} pictures of {place} is among the photos")
    exact = len({pair.first for pair in pairs if pair.way == "bytes"})
    every = len({pair.first for pair in pairs})
    return Finding(
        "fatal",
        "leakage",
        f"{every} photos are in {place} as well, {exact} of them byte for byte",
        "figures measured there would be a lie; take these photos out of the calibration",
        tuple(f"{looks[pair.first].name} = {others[pair.second].name}" for pair in pairs),
    )


def steadiness(result: Stability) -> Finding:
    """Whether there are enough photos for ranges to hold still."""
    last = result.points[-1]
    moved = f"with {last.photos} distinct photos 95 % of the ranges move by {100 * last.high:.1f} % or less"
    if result.enough is not None:
        return Finding("ok", "how many", f"{moved}; {result.enough} are enough for {100 * ENOUGH:g} %")
    advice = f"about {result.needed} would bring it to {100 * ENOUGH:g} %; add others, not more of the same"
    return Finding("warning" if last.high > 2 * ENOUGH else "note", "how many", moved, advice)


def _coverage(check: str, shares: dict[str, float], advice: str) -> Finding:
    seen = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    missing = [name for name, share in shares.items() if share < COVERED]
    if not missing:
        return Finding("ok", check, seen)
    return Finding("note", check, f"{seen}: hardly any {' or '.join(missing)}", advice)


def _side(look: Look) -> float:
    """How far the nose stands from the middle between the eyes, along the line through them; negative to the left."""
    if look.face is None:
        return 0.0
    left, right, nose = (look.face.landmarks[i].astype(np.float64) for i in range(3))
    axis = right - left
    return float((nose - (left + right) / 2) @ axis / max(float(axis @ axis), 1e-12))


def _extra(groups: Sequence[tuple[int, ...]]) -> int:
    return sum(len(group) - 1 for group in groups)


def _names(looks: Sequence[Look], groups: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(" = ".join(looks[i].name for i in group) for group in groups)
