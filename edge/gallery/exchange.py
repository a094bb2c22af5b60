"""A gallery as one file, to carry it elsewhere, and a gallery moved to another model."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge.embed import Embedder
from edge.errors import GalleryError, InputError
from edge.gallery.binding import Binding
from edge.gallery.gallery import Gallery
from edge.gallery.store import Entry
from edge.types import Floats, Image

FORMAT = "arcedge-gallery"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Moved:
    """What a migration came to: embeddings made again, and those dropped because their crop was not kept."""

    embedded: int
    dropped: int


def export_gallery(gallery: Gallery, path: Path) -> int:
    """Writes names, vectors, sources and kept crops to an .npz file; gives the number of embeddings.

    Raises InputError where it cannot be written.
    """
    entries = gallery.entries()
    header = {"format": FORMAT, "version": VERSION, "binding": json.loads(gallery.binding.to_json())}
    # Crops of any length in one array: all bytes in a row, and where each ends. No pickle in a file people exchange.
    crops = [entry.crop or b"" for entry in entries]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(
                file,
                header=np.array(json.dumps(header)),
                identity=np.array([entry.identity for entry in entries], np.str_),
                source=np.array([entry.source for entry in entries], np.str_),
                vector=_stacked(entries, gallery.binding.embedding_size),
                crop_bytes=np.frombuffer(b"".join(crops), np.uint8),
                crop_ends=np.cumsum([len(crop) for crop in crops], dtype=np.int64),
            )
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(entries)


def import_gallery(path: Path, target: Path) -> int:
    """Adds an exported file's people to the gallery at `target`, which is made where there is none.

    Gives how many embeddings were not there yet. Raises InputError for a file that is no export or is damaged,
    GalleryError where the gallery is of another model.
    """
    binding, names, sources, vectors, crops = _read(path)
    added = 0
    with Gallery.open_or_create(target, binding) as gallery:
        for name in dict.fromkeys(names.tolist()):
            rows = np.flatnonzero(names == name)
            try:
                added += gallery.add(name, vectors[rows], [str(sources[i]) for i in rows], [crops[i] for i in rows])
            except ValueError as error:
                raise InputError(f"{path}: {error}") from error
    return added


def migrate(
    gallery: Gallery, target: Path, binding: Binding, embedder: Embedder, progress: Callable[[], object] = lambda: None
) -> Moved:
    """Embeds the kept crops with another model into a new gallery at `target`. `progress` is called after each crop.

    Raises GalleryError where `target` exists or no crop was kept.
    """
    entries = gallery.entries()
    kept = [entry for entry in entries if entry.crop is not None]
    if not kept:
        raise GalleryError(
            f"{gallery.path}: no crop was kept, so there is nothing to embed again; enrol with --keep-crops"
        )
    with Gallery.create(target, binding) as moved:
        for name, group in groupby(kept, key=lambda entry: entry.identity):
            own = list(group)
            vectors = []
            for entry in own:
                vectors.append(embedder.embed(_decoded(entry)[None])[0])
                progress()
            moved.add(name, np.stack(vectors), [entry.source for entry in own], [entry.crop for entry in own])
    return Moved(len(kept), len(entries) - len(kept))


def _read(
    path: Path,
) -> tuple[Binding, npt.NDArray[np.str_], npt.NDArray[np.str_], Floats, list[bytes | None]]:
    """Binding, names, sources, vectors and crops of an exported file; raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            names, sources, vectors = file["identity"], file["source"], file["vector"]
            data, ends = file["crop_bytes"].tobytes(), file["crop_ends"]
        known = (header["format"], header["version"]) == (FORMAT, VERSION)
        binding = Binding.from_json(json.dumps(header["binding"]))
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an exported gallery, or damaged ({error})") from error
    if not known or not len(names) == len(sources) == len(vectors) == len(ends):
        raise InputError(f"{path}: not a gallery exported by this arcedge, or damaged")
    starts = [0, *ends.tolist()][: len(ends)]
    crops = [data[start:end] or None for start, end in zip(starts, ends.tolist(), strict=True)]
    return binding, names, sources, vectors, crops


def _stacked(entries: list[Entry], size: int) -> Floats:
    return np.array([entry.vector for entry in entries], np.float32).reshape(-1, size)


def _decoded(entry: Entry) -> Image:
    image = cv2.imdecode(np.frombuffer(entry.crop or b"", np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise GalleryError(
            f"embedding {entry.number} of {entry.identity!r}: its crop is damaged; remove it and enrol again"
        )
    return np.asarray(image, np.uint8)
