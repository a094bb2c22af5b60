"""The score from which each variant's detections count as faces: fitted on whole photographs, for rounding moves it.

It is where the variant finds as many faces as FP32 finds at its own working score. That needs no labels, only pictures
as a camera sees them, in which some faces are hard to see. Tight crops of faces have hardly any near the working score,
and crops made small, dark or blurred are hard in another way than faces are: fitted on them the score was off by up to
0.12 (docs/int8.md). So it is fitted on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from edge.detect import WORKING_SCORE, Detector, DetectorOptions
from edge.engines import SessionOptions, open_session
from edge.errors import InputError
from edge.manifest import DetectionScore
from edge.metrics.intervals import Values, bootstrap_interval
from edge.pictures import find_pictures, read_picture
from edge.signatures import PictureSignature, sign_picture
from export.sources import Source

LEAST_FACES, LEAST_PICTURES = 200, 50
"""Fewer decide nothing. For an INT8 detector and draws of WIDER FACE pictures, of the scores fitted on 30 pictures with
110 faces one in seven was further from that of all 1,500 than FP32's is; on 60 with 250 faces none of 60 was."""

FLOOR = 0.2
"""Detections below are not looked at: no sound variant's working score is there."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedScores:
    """By variant; none where the pictures were too few. pictures: what names each of those the scores rest on."""

    scores: Mapping[str, DetectionScore] = field(default_factory=dict)
    pictures: tuple[PictureSignature, ...] = ()


def fit_detection_scores(
    source: Source, variants: Mapping[str, bytes], folder: Path, tell: Callable[[str], None], *, quiet: bool = False
) -> FittedScores:
    """Runs FP32 and every variant over the pictures of a folder, as over a camera's frames, and fits a score for each.

    variants: models by name. Says what came of it. Raises InputError where the folder holds no picture.
    """
    models = {"": source.float_model.SerializeToString(), **variants}
    found, seen = _look(models, source, folder, tell, quiet=quiet)
    reference = found.pop("")
    faces = _count(reference, WORKING_SCORE)
    if faces < LEAST_FACES or len(seen) < LEAST_PICTURES:
        tell(
            f"no detection score was fitted: FP32 finds {faces} faces in {len(seen)} pictures of {folder.name}, "
            f"{LEAST_FACES} in {LEAST_PICTURES} are the least; every precision takes FP32's, {WORKING_SCORE:g}"
        )
        return FittedScores()
    words = f"{len(seen):,} pictures of {folder.name}"
    scores = dict[str, DetectionScore]()
    for name, one in found.items():
        try:
            scores[name] = fit_detection_score(one, reference, words)
        except InputError as error:
            tell(f"{name}: {error}; it takes FP32's score, {WORKING_SCORE:g}")
            continue
        tell(as_line(name, scores[name]))
    return FittedScores(scores, seen)


def fit_detection_score(variant: Sequence[Scores], reference: Sequence[Scores], source: str) -> DetectionScore:
    """The score at which as many of a variant's detections lie above as of FP32's above WORKING_SCORE.

    Both: the scores from FLOOR on of the detections in each picture, two pictures or more. It is WORKING_SCORE itself
    unless the interval excludes that. Raises InputError where the variant has too few detections from FLOOR on.
    """
    of = np.repeat(np.arange(len(variant)), [len(one) for one in variant])
    scores = np.concatenate(variant)
    order = np.argsort(-scores, kind="stable")
    of, scores = of[order], scores[order]
    wanted = np.array([(one >= WORKING_SCORE).sum() for one in reference])
    if len(scores) < wanted.sum():
        raise InputError(f"finds {len(scores):,} faces even from a score of {FLOOR:g}, FP32 {wanted.sum():,}")

    def equal(draws: Values) -> Values:
        times = (np.bincount(draw.astype(np.int64), minlength=len(wanted)) for draw in draws)
        return np.array([_equal_count(scores, one[of], int(one @ wanted)) for one in times])

    fitted = bootstrap_interval(np.arange(len(wanted), dtype=np.float64), equal)
    certain = not fitted.low <= WORKING_SCORE <= fitted.high
    value, low, high = (round(one, 4) for one in (fitted.value, fitted.low, fitted.high))
    return DetectionScore(
        score=value if certain else WORKING_SCORE,
        reference=WORKING_SCORE,
        low=low,
        high=high,
        faces=int(wanted.sum()),
        found=_count(variant, WORKING_SCORE),
        pictures=len(wanted),
        source=source,
    )


def as_line(name: str, found: DetectionScore) -> str:
    """What was fitted, for the one who waits."""
    kept = " as in FP32" if found.score == found.reference else ""
    return (
        f"{name}: a face from a score of {found.score:g}{kept}; it finds as many as FP32 from {found.low:.3f} to "
        f"{found.high:.3f}, and {found.found:,} for {found.faces:,} from {found.reference:g} ({found.source})"
    )


def _equal_count(scores: Scores, times: npt.NDArray[np.int64], wanted: int) -> float:
    """The score nearest to WORKING_SCORE, up to a gap between two detections, from which `wanted` detections count.

    scores: (D,) descending, each there `times` (D,) times.
    """
    last = int(np.searchsorted(np.cumsum(times), wanted))
    if last >= len(scores):
        return FLOOR
    there = np.flatnonzero(times[last + 1 :])
    low, high = float(scores[last + 1 + there[0]]) if len(there) else FLOOR, float(scores[last])
    return WORKING_SCORE if low < WORKING_SCORE <= high else (low + high) / 2


def _count(scores: Sequence[Scores], least: float) -> int:
    return int(sum((one >= least).sum() for one in scores))


def _look(
    models: Mapping[str, bytes], source: Source, folder: Path, tell: Callable[[str], None], *, quiet: bool
) -> tuple[dict[str, list[Scores]], tuple[PictureSignature, ...]]:
    """By model the scores in each picture that can be read, and what names these. One picture at a time is held."""
    photos, unreadable, seen = find_pictures([folder]), list[str](), list[PictureSignature]()
    found: dict[str, list[Scores]] = {name: [] for name in models}
    with ExitStack() as opened:
        detectors = {
            name: Detector(
                opened.enter_context(open_session(data, options=SessionOptions(threads=2))),
                source.contract,
                DetectorOptions(min_score=FLOOR),
            )
            for name, data in models.items()
        }
        for path in tqdm(photos, desc=f"faces of {folder.name}", unit="photo", disable=quiet, leave=False):
            try:
                image = read_picture(path)
                seen.append(sign_picture(path, image))
            except InputError:
                unreadable.append(path.relative_to(folder).as_posix())
                continue
            for name, detector in detectors.items():
                found[name].append(np.array([face.score for face in detector.find(image)], np.float64))
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        tell(f"left out, not a picture: {', '.join(unreadable[:5])}{more}")
    return found, tuple(seen)
