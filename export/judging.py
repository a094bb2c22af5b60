"""What is measured of each variant before it may go into a bundle, and the thresholds fitted on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge.align import widen
from edge.errors import InputError
from edge.manifest import Threshold
from edge.types import Floats, Image
from edge.weights.cards import CARD_SUFFIX
from export.agreement import (
    compare_detections,
    compare_embeddings,
    compare_landmarks,
    detect_with,
    embed_with,
    landmarks_with,
)
from export.calibration.photos import synthetic_crops
from export.calibration.table import read_finder, read_thresholds
from export.gate import EvaluationPairs, accuracy_drop, rank_flips, require_inside, tar_drop
from export.photos import Photos
from export.request import ExportRequest
from export.sources import CALIBRATION_SUFFIX, Source
from export.thresholds import DEFAULT_FAR, card_threshold, fit_threshold
from export.variants import Built, held_out

SYNTHETIC_CROPS = 16


@dataclass(slots=True)
class EmbedderJudge:
    """Judges embedder variants of one source against its reference. Raises GateError for one outside its budget."""

    source: Source
    request: ExportRequest
    photos: Photos
    _reference: dict[str, Floats] = field(default_factory=dict)

    def judge(self, built: Built) -> tuple[dict[str, Any], Threshold | None]:
        """What was measured, JSON-ready, and the threshold."""
        measured = {"agreement": self._agreement(built)}
        if self.request.evaluate is not None:
            measured["evaluation"] = self._evaluation(built)
        threshold, tar = self._threshold(built)
        if tar:
            measured["tar_at_far"] = tar
        return measured, threshold

    def _agreement(self, built: Built) -> dict[str, Any]:
        folder = self._folder()
        faces = self.photos.faces(folder).crops if folder is not None else None
        on = "held-out calibration crops" if faces is not None else "synthetic crops: mechanics only"
        crops = held_out(faces) if faces is not None else synthetic_crops(SYNTHETIC_CROPS)
        agreement = compare_embeddings(self._embed(built, crops), self._embed_reference("agreement", crops), on)
        # What eight bits keep of faces cannot be seen on pictures that show none.
        if faces is not None or built.precision != "int8":
            over = f"{agreement.count} {on}"
            self.request.budget.require_cosine(built.name, built.precision, agreement.mean_cosine, over)
        return agreement.to_dict()

    def _evaluation(self, built: Built) -> dict[str, Any]:
        pairs = self._evaluation_pairs()
        reference, variant = self._embed_reference("pairs", pairs.crops), self._embed(built, pairs.crops)
        far = self.request.far or DEFAULT_FAR
        drops = [accuracy_drop(reference, variant, pairs.rows), tar_drop(reference, variant, pairs.identities, far)]
        require_inside(built.name, drops, self.request.budget.max_drop)
        return {
            "pairs_left_out": pairs.left_out,
            "rank_flips": {"count": rank_flips(reference, variant), "of": len(pairs.crops)},
            **{drop.what: drop.to_dict() for drop in drops},
        }

    def _evaluation_pairs(self) -> EvaluationPairs:
        if self.request.evaluate is None or self.request.images is None:
            raise InputError("--evaluate PAIRS.txt needs --images DIR, the folder of its pictures")
        return self.photos.pairs(self.request.evaluate, self.request.images)

    def _threshold(self, built: Built) -> tuple[Threshold | None, dict[str, Any] | None]:
        """From --pairs-from, else from calibration photos of several people, else what is stored beside the weights."""
        request, far = self.request, self.request.far or DEFAULT_FAR
        if request.pairs_from is not None:
            return self._fitted(
                built, self.photos.faces(request.pairs_from), far, f"all pairs of {request.pairs_from.name}"
            )
        folder = self._folder()
        if folder is not None and len(set(self.photos.faces(folder).identities)) > 1:
            return self._fitted(built, self.photos.faces(folder), far, "all pairs of the calibration photos")
        stored = self._stored(built)
        if stored is not None and request.far is not None and abs(stored.far - request.far) > 1e-9:
            raise InputError(
                f"the threshold stored beside {self.source.path.name} is for FAR {stored.far:g}, not {request.far:g}; "
                "fit one with --pairs-from DIR"
            )
        if built.precision == request.precisions[0]:
            if stored is None:
                self.photos.tell("no threshold was fitted: name a folder of identities with --pairs-from DIR")
            elif self._found_otherwise():
                self.photos.tell(
                    "the thresholds stored beside the weights are of faces that another detector or landmarker found; "
                    "fit them anew with --pairs-from DIR"
                )
        return stored, None

    def _found_otherwise(self) -> bool:
        """Whether the stored thresholds are known to be of faces that were found otherwise than this bundle's."""
        table = self.source.beside(CALIBRATION_SUFFIX)
        found = read_finder(table) if table is not None else None
        return found is not None and found != self.photos.finder.digests()

    def _fitted(self, built: Built, faces: Any, far: float, words: str) -> tuple[Threshold, dict[str, Any] | None]:
        return fit_threshold(self._embed(built, faces.crops), faces.labels, far, words)

    def _stored(self, built: Built) -> Threshold | None:
        table, card = self.source.beside(CALIBRATION_SUFFIX), self.source.beside(CARD_SUFFIX)
        if table is not None and (found := read_thresholds(table).get(built.name)) is not None:
            return found
        return card_threshold(card, built.precision) if card is not None else None

    def _folder(self) -> Any:
        folder = self.request.calibration
        return folder if folder is not None and folder.is_dir() else None

    def _embed(self, built: Built, crops: Image) -> Floats:
        return embed_with(built.data, self.source.contract, crops)

    def _embed_reference(self, key: str, crops: Image) -> Floats:
        if key not in self._reference:
            if self.source.reference is None:
                raise InputError(f"{self.source.path}: an embedder is needed")
            self._reference[key] = self.source.reference(crops)
        return self._reference[key]


def judge_detector(source: Source, built: Built, pictures: list[Image], request: ExportRequest) -> dict[str, Any]:
    """How a detector variant agrees with FP32 on pictures no range was taken from. Raises GateError out of budget."""
    judges = [picture for i, picture in enumerate(pictures) if i % 4 == 3]
    if not judges:
        return {}
    reference = detect_with(source.float_model.SerializeToString(), source.contract, judges)
    agreement = compare_detections(detect_with(built.data, source.contract, judges), reference)
    request.budget.require_agreement(built.name, built.precision, agreement.figure, agreement.faces)
    return {"agreement": agreement.to_dict()}


def judge_landmarker(source: Source, built: Built, crops: Image | None, request: ExportRequest) -> dict[str, Any]:
    """How far from FP32 a landmarker variant places landmarks. Raises GateError for one out of budget.

    crops: (N, 112, 112, 3) uint8 BGR aligned faces; None where there is no photo.
    """
    on = "calibration crops" if crops is not None else "synthetic crops: mechanics only"
    views = widen(crops if crops is not None else synthetic_crops(SYNTHETIC_CROPS))
    reference = landmarks_with(source.float_model.SerializeToString(), source.contract, views)
    shift = compare_landmarks(landmarks_with(built.data, source.contract, views), reference, on)
    request.budget.require_shift(built.name, built.precision, shift.mean_shift, f"{shift.count} {on}")
    return {"agreement": shift.to_dict()}
