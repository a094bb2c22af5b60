"""A trained model folder tested again: ours, or what the original pipeline left (`model_*.path`, `head_*.path`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.nn import functional as F

from edge.errors import InputError
from edge.types import Floats
from training.checkpoint import load_embedder, load_head, load_head_identities
from training.data import read_dataset
from training.embedding import embed
from training.evaluate import centroids, closed_set
from training.faces import Finder, cached_faces
from training.job import write_predictions
from training.splits import published_split


def retest(dataset_folder: Path, model_folder: Path, tables: Path, finder: Finder) -> str:
    """Names the photos of test.csv, writes `predictions.csv` into the model folder, and says how many are right.

    The head decides where there is one, else the nearest mean of the photos of train.csv. Photos are not flipped or
    changed otherwise, and a face that is not found is a wrong answer. Raises InputError.
    """
    dataset = read_dataset(dataset_folder)
    split = published_split(tables, dataset)
    if not split.test:
        raise InputError(f"{tables / 'test.csv'}: names no photo of {dataset_folder}")
    model, _ = load_embedder(
        _newest(model_folder, ("mobilefacenet.safetensors", "model_*.path", "*mobilefacenet*.pth"))
    )
    faces = cached_faces(dataset, finder, model_folder / "faces.npz")
    rows = {
        part: np.array([i for i, p in enumerate(dataset.photos) if p.path in set(getattr(split, part))])
        for part in ("train", "test")
    }
    label_of = {name: label for label, name in enumerate(dataset.identities)}
    labels = np.array([label_of[photo.identity] for photo in dataset.photos], np.int64)
    train = rows["train"][faces.found[rows["train"]]]
    axes, how = _head_axes(model_folder, dataset.identities), "by the head"
    if axes is None:
        axes = centroids(embed(model, faces.crops[train]), labels[train], len(dataset.identities))
        how = "by the nearest mean of the training photos"
    test = rows["test"]
    embeddings = embed(model, faces.crops[test])
    embeddings[~faces.found[test]] = np.nan
    result = closed_set(axes, embeddings, labels[test], np.arange(len(test)))
    out = model_folder / "predictions.csv"
    write_predictions(out, [dataset.photos[row].path for row in test], dataset.identities, result)
    warnings = "".join(f"warning: {line}\n" for line in (*dataset.warnings, *split.warnings))
    return f"{warnings}accuracy {how}: {result.photos.percent()}, 95 % interval in brackets\nwrote {out}"


def _head_axes(folder: Path, identities: tuple[str, ...]) -> Floats | None:
    """(classes, D) unit rows in the order of `identities`; None where the folder holds no head that fits them."""
    try:
        path = _newest(folder, ("head.safetensors", "head_*.path"))
    except InputError:
        return None
    kernel = load_head(path)
    # The original's heads name no columns: they stand in the order of the sorted identities.
    names = load_head_identities(path) or identities
    if len(names) != kernel.shape[1] or set(names) != set(identities):
        raise InputError(f"{path}: knows {kernel.shape[1]} people, and the data set has {len(identities)} or others")
    axes: Floats = F.normalize(kernel, dim=0).T.numpy()
    return axes[[names.index(name) for name in identities]]


def _newest(folder: Path, patterns: tuple[str, ...]) -> Path:
    for pattern in patterns:
        if found := sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime):
            return found[-1]
    raise InputError(f"{folder}: holds none of {', '.join(patterns)}; name the folder the training wrote")
