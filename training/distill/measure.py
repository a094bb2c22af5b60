"""What a finished student measures beside its teacher, and the card that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from edge.detect import Detector
from edge.metrics.intervals import Rate
from edge.metrics.pairs import PairRows, images_of, read_pairs
from edge.metrics.scores import all_pair_scores
from edge.metrics.verification import KFoldAccuracy, TarAtFar, kfold_accuracy, tar_at_far
from edge.types import Floats, Image
from edge.weights.cards import Figure
from training.card import command, machine, versions
from training.distill.crops import CropStore
from training.distill.feed import to_pixels
from training.distill.run import Distiller, TeacherLike, to_student
from training.faces import align_files
from training.mobilefacenet import MobileFaceNet
from training.shipping import write_shipped_card

FARS = (1e-2, 1e-3, 1e-4)
TARGETS = {"accuracy": 0.99, 1e-3: 0.97}

LIMITS = (
    "It can be no better than its teacher but by chance: it learned the teacher's answers and no label, block by "
    "block, so that its function is close to the teacher's. Its weights were trained from random ones.",
    "Its training crops show celebrities, some of whom are photographed in LFW too; names were not compared, no LFW "
    "picture was trained on, and labels were not used.",
    "Not measured: faces in profile, across ages, by sex or skin colour, of children, in infrared light.",
    "The pairs of all photos share photos, so that their intervals are too narrow.",
)


@dataclass(frozen=True, slots=True)
class VerificationSet:
    """Photos of a pairs file, aligned: crops (N, 112, 112, 3) uint8 BGR, identities (N,) as numbers; rows: the pairs.

    detector: the name of what found their faces. missed: photos in which no face was found; they stand as black crops
    and count as they come out.
    """

    name: str
    detector: str
    crops: Image
    identities: npt.NDArray[np.int64]
    rows: PairRows
    missed: int


@dataclass(frozen=True, slots=True)
class Verification:
    """accuracy: over the pairs, by folds. tars: over all pairs of the photos, at `FARS`. pairs: genuine, impostor."""

    accuracy: KFoldAccuracy
    tars: tuple[TarAtFar, ...]
    pairs: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "accuracy": self.accuracy.accuracy.to_dict(),
            "folds": list(self.accuracy.folds),
            "genuine_pairs": self.pairs[0],
            "impostor_pairs": self.pairs[1],
            "tar_at_far": [
                {"far": tar.far, "threshold": tar.threshold, "tar": tar.tar.to_dict() if tar.tar else tar.refusal}
                for tar in self.tars
            ],
        }


def read_verification_set(
    pairs_file: Path, folder: Path, detector: Detector, name: str, found_by: str
) -> VerificationSet:
    """The photos of an LFW-style pairs file, found and aligned as the runtime does. They only measure.

    name, found_by: of the set and of the detector, for the card.
    """
    pairs = read_pairs(pairs_file)
    files = images_of(pairs, folder)
    faces = align_files(list(files.values()), detector)
    _, identities = np.unique([picture.parent.name for picture in files], return_inverse=True)
    return VerificationSet(
        name,
        found_by,
        faces.crops,
        identities.astype(np.int64),
        PairRows.of(pairs, {picture: i for i, picture in enumerate(files)}),
        int((~faces.found).sum()),
    )


def verify(embeddings: Floats, data: VerificationSet) -> Verification:
    """embeddings: (N, D) float32 unit rows of the set's crops."""
    scores = np.einsum("ij,ij->i", embeddings[data.rows.first], embeddings[data.rows.second])
    everything = all_pair_scores(embeddings, data.identities)
    return Verification(
        kfold_accuracy(scores, data.rows.same, data.rows.folds),
        tuple(tar_at_far(everything.genuine, everything.impostor, far) for far in FARS),
        (len(everything.genuine), len(everything.impostor)),
    )


@torch.inference_mode()
def embed_with(network: Callable[[Tensor], Tensor], crops: Image) -> Floats:
    """(N, 112, 112, 3) uint8 BGR → (N, D) float32 unit rows. network: RGB 0–255 pixels to embeddings."""
    parts = [
        normalize(network(to_pixels(crops[start : start + 32])), dim=1).numpy() for start in range(0, len(crops), 32)
    ]
    return np.concatenate(parts)


def measure_both(
    student: MobileFaceNet, teacher: TeacherLike, data: VerificationSet
) -> tuple[Verification, Verification]:
    """(student, teacher) on the same crops."""
    student.eval()
    return (
        verify(embed_with(lambda pixels: student(to_student(pixels)), data.crops), data),
        verify(embed_with(lambda pixels: teacher(pixels).embedding, data.crops), data),
    )


def write_distilled_card(
    weights: Path,
    distiller: Distiller,
    finished: MobileFaceNet,
    teacher: dict[str, str],
    terms: str,
    sets: Sequence[VerificationSet],
) -> Path:
    """The card beside `weights`, which are those of `finished`; its path.

    teacher: name, sha256, licence. terms: of the crops, in words.
    """
    more: dict[str, Any] = {
        "teacher": teacher,
        "crops": _describe(distiller.crops) | {"held_out": len(distiller.held_out)},
        "recipe": asdict(distiller.recipe),
        "took": {"wall_seconds": round(distiller.seconds), "cpu_seconds": round(distiller.cpu_seconds)},
        "machine": machine(torch.device("cpu")),
        "versions": versions(),
        "command": command(),
    }
    verified, more["through"] = verification_figures(finished, distiller.teacher, teacher["name"], sets)
    figures = [*_agreement(distiller), *verified]
    return write_shipped_card(
        weights,
        role="embedder",
        licence="Apache-2.0",
        data=f"{len(distiller.crops):,} aligned face crops, and the answers of {teacher['name']} "
        f"({teacher['licence']}) to them; no label. {terms}",
        figures=figures,
        limits=LIMITS,
        more=more,
    )


def verification_figures(
    student: MobileFaceNet, teacher: TeacherLike, called: str, sets: Sequence[VerificationSet]
) -> tuple[list[Figure], dict[str, Any]]:
    """Figures of student and teacher on each set, and all that was found, JSON-ready, by what found the faces.

    called: the teacher. Targets are of the first set: how many faces are met right is no merit of an embedder.
    """
    figures, through = list[Figure](), dict[str, Any]()
    for place, data in enumerate(sets):
        own, taught = measure_both(student, teacher, data)
        where = "" if place == 0 else f", faces found by {data.detector}"
        figures += _figures(own, data, where, TARGETS if place == 0 else {})
        figures += _figures(taught, data, f" of the teacher ({called}){where}", {})
        through[data.detector] = {
            "verification": own.to_dict(),
            "verification_of_teacher": taught.to_dict(),
            "missed": data.missed,
        }
    return figures, through


def _agreement(distiller: Distiller) -> list[Figure]:
    if len(distiller.held_out) < 2:
        return [Figure("mean cosine to the teacher's embedding", None, on="no crop was held out")]
    found = distiller.agreement()
    on = "crops of people not trained on, before the embedding was centred"
    return [
        Figure("mean cosine to the teacher's embedding", round(found.cosine, 4), count=found.crops, on=on),
        Figure("difference of the cosines of pairs, root mean square", round(found.pairs, 4), count=found.crops, on=on),
    ]


def _figures(found: Verification, data: VerificationSet, whose: str, targets: dict[Any, float]) -> list[Figure]:
    accuracy = found.accuracy.accuracy
    genuine, impostor = found.pairs
    through = f"{data.name} through {data.detector}"
    everything = f"{through}: all {genuine:,} genuine and {impostor:,} impostor pairs of {len(data.crops):,} photos"
    pairs = f"{through}: pairs of {len(found.accuracy.folds)} folds, the threshold of each fitted on the others"
    figures = [_figure(f"verification accuracy{whose}", accuracy, pairs, targets.get("accuracy"))]
    for tar in found.tars:
        what = f"TAR at FAR {tar.far:g}{whose}"
        if tar.tar is None:
            figures.append(Figure(what, None, on=tar.refusal or ""))
        else:
            figures.append(_figure(what, tar.tar, everything, targets.get(tar.far)))
    return figures


def _figure(what: str, rate: Rate, on: str, target: float | None) -> Figure:
    return Figure(
        what,
        round(100 * rate.value, 3),
        round(100 * rate.low, 3),
        round(100 * rate.high, 3),
        rate.count,
        on,
        "%",
        "" if target is None else f"at least {100 * target:g} %",
        None if target is None else rate.value >= target,
    )


def _describe(crops: CropStore) -> dict[str, Any]:
    sources = Counter(name.partition("/")[0] for name in crops.names)
    return {"count": len(crops), "sources": dict(sources), "sha256": crops.digest()}
