"""What training starts from: photos, their faces, groups of near-duplicates, the split and the base network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from edge.errors import InputError
from edge.pictures import read_picture
from edge.signatures import perceptual_hash
from edge.types import Floats
from training.checkpoint import CheckpointInfo, load_embedder
from training.data import Dataset, read_dataset
from training.duplicates import Groups, find_groups, read_groups
from training.embedding import embed
from training.evaluate import Labels
from training.faces import AlignedFaces, Finder, cached_faces, take_aligned
from training.finetune import LearningSet
from training.mobilefacenet import Activation, MobileFaceNet
from training.recipe import FinetuneOptions
from training.splits import Split, crossing_groups, group_split, published_split, read_split

GROUPS_FILE = "near_duplicate_groups.json"
TABLES_FOLDER = "seed_split"


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """finder: None where the photos are aligned 112×112 crops. activation: None for the base's own.

    split: "group", "published", or a path to a split (JSON, card, or folder of tables). groups: a file of
    near-duplicates; without one, the file of that name in or beside the data set; without that, they are searched.
    rehearsal: aligned crops of other people, zip archives or folders. strangers, pairs with images: they only measure.
    """

    dataset: Path
    out: Path
    weights: Path
    finder: Finder | None
    split: str = "group"
    groups: Path | None = None
    activation: Activation | None = None
    rehearsal: tuple[Path, ...] = ()
    strangers: Path | None = None
    pairs: Path | None = None
    images: Path | None = None
    options: FinetuneOptions = field(default_factory=FinetuneOptions)
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training starts from. faces, group_of: one row a photo of the data set."""

    dataset: Dataset
    faces: AlignedFaces
    groups: Groups
    groups_from: str
    split: Split
    base: MobileFaceNet
    base_info: CheckpointInfo

    def part(self, name: str) -> LearningSet:
        """The photos of a part of the split in which a face was found."""
        rows = self.rows(name)
        rows = rows[self.faces.found[rows]]
        return LearningSet(self.faces.crops[rows], self.labels[rows], self.group_of[rows])

    def rows(self, name: str) -> Labels:
        """Rows of all photos of a part of the split."""
        wanted = set(getattr(self.split, name))
        rows = [i for i, photo in enumerate(self.dataset.photos) if photo.path in wanted]
        return np.array(rows, np.int64)

    @property
    def labels(self) -> Labels:
        """(N,) position of each photo's identity among the sorted names."""
        index = {name: label for label, name in enumerate(self.dataset.identities)}
        return np.array([index[photo.identity] for photo in self.dataset.photos], np.int64)

    @property
    def group_of(self) -> Labels:
        """(N,) number of each photo's group."""
        number = {path: i for i, group in enumerate(self.groups) for path in group}
        return np.array([number[photo.path] for photo in self.dataset.photos], np.int64)


def prepare(job: TrainingJob, say: Callable[[str], None]) -> Prepared:
    """Reads photos, faces, base, groups and split; says what was passed over. Raises InputError."""
    dataset = read_dataset(job.dataset)
    base, info = load_embedder(job.weights)
    base = with_activation(base, job.activation)
    job.out.mkdir(parents=True, exist_ok=True)
    faces = take_aligned(dataset) if job.finder is None else cached_faces(dataset, job.finder, job.out / "faces.npz")
    if not faces.found.any():
        raise InputError(f"{job.dataset}: no face was found in any photo; are these photos of faces?")
    groups, groups_from = _groups(job, dataset, faces, base)
    split = _split(job, dataset, groups)
    missed = [p.path for p, found in zip(dataset.photos, faces.found, strict=True) if not found]
    for line in (*dataset.warnings, *(f"{path}: no face found" for path in missed), *split.warnings):
        say(f"warning: {line}")
    if leaks := crossing_groups(split, groups):
        say(f"warning: {len(leaks)} groups of near-duplicates have photos in two parts of this split: it leaks")
    return Prepared(dataset, faces, groups, groups_from, split, base, info)


def with_activation(base: MobileFaceNet, activation: Activation | None) -> MobileFaceNet:
    """The network with the activation asked for. ReLU becomes PReLU with slope 0, which is the same function.

    Raises InputError for the way back, which loses what the slopes do.
    """
    if activation is None or activation == base.activation:
        return base
    if activation == "relu":
        raise InputError(
            "the base has PReLU, and ReLU is another function; leave --activation out, or take a ReLU base"
        )
    model = MobileFaceNet(base.embedding_size, "prelu")
    for module in model.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.zeros_(module.weight)
    model.load_state_dict(base.state_dict(), strict=False)
    return model.eval()


def _groups(job: TrainingJob, dataset: Dataset, faces: AlignedFaces, base: MobileFaceNet) -> tuple[Groups, str]:
    beside = (dataset.root / GROUPS_FILE, dataset.root.resolve().parent / GROUPS_FILE)
    path = job.groups or next((path for path in beside if path.is_file()), None)
    if path is not None:
        return read_groups(path, dataset), path.name
    hashes = [perceptual_hash(read_picture(dataset.root / photo.path)) for photo in dataset.photos]
    embeddings: Floats = embed(base, faces.crops)
    embeddings[~faces.found] = np.nan
    return find_groups(dataset, hashes, embeddings), "searched: pHash within 8 of 64 bits, or cosine above 0.9"


def _split(job: TrainingJob, dataset: Dataset, groups: Groups) -> Split:
    if job.split == "group":
        return group_split(dataset, groups, job.options.seed)
    if job.split == "published":
        beside = (dataset.root / TABLES_FOLDER, dataset.root.resolve().parent / TABLES_FOLDER)
        folder = next((path for path in beside if path.is_dir()), None)
        if folder is None:
            raise InputError(
                f"--split published: no folder {TABLES_FOLDER} in or beside {dataset.root}; name the tables' folder"
            )
        return published_split(folder, dataset)
    path = Path(job.split)
    return published_split(path, dataset) if path.is_dir() else read_split(path, dataset)
