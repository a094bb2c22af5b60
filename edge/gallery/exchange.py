"""A gallery as one file, to carry it elsewhere, and a gallery moved to another model."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.embed import Embedder
from edge.errors import GalleryError, InputError
from edge.gallery import envelope
from edge.gallery.binding import Binding
from edge.gallery.cipher import Key
from edge.gallery.files import replacing
from edge.gallery.gallery import Gallery
from edge.gallery.place import Place
from edge.gallery.store import Entry, NewEntry
from edge.types import Image

FORMAT = "arcedge-gallery"
VERSION = 2
BATCH = 10_000
"""Embeddings a transaction of an import: none of a smaller file is there before all of it is."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a migration came to: embeddings made again, and those dropped because their crop was not kept."""

    embedded: int
    dropped: int


def export_gallery(gallery: Gallery, path: Path, key: Key | None = None) -> int:
    """Writes names, vectors, negatives, sources and kept crops to a file; gives the number of vectors.

    With a key the file is encrypted, else it is an .npz; only its owner may read it. Raises InputError where it cannot
    be written.
    """
    entries = gallery.entries()
    buffer = io.BytesIO()
    _write(buffer, gallery.binding, entries)
    try:
        with replacing(path) as file:
            os.fchmod(file.fileno(), 0o600)
            if key is None:
                file.write(buffer.getbuffer())
            else:
                envelope.seal(buffer.getbuffer(), file, key)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return len(entries)


def import_gallery(path: Path, target: Place, key: Key | None = None, file_key: Key | None = None) -> int:
    """Adds an exported file's people to the gallery at `target`, which is made where there is none.

    key: opens the gallery; file_key: the file, where it is encrypted. Gives how many vectors were not there yet.
    Raises InputError for a file that is no export or is damaged, GalleryError where the gallery is of another model or
    a key is wrong.
    """
    binding, entries = _read(path, file_key)
    batches = [entries[start : start + BATCH] for start in range(0, len(entries), BATCH)]
    with Gallery.open_or_create(target, binding, key) as gallery:
        try:
            return sum(gallery.add_entries(batch) for batch in batches)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error


def migrate(
    gallery: Gallery,
    target: Place,
    binding: Binding,
    embedder: Embedder,
    progress: Callable[[], object] = lambda: None,
    key: Key | None = None,
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
    with Gallery.create(target, binding, key) as moved:
        fresh = []
        # People first: a negative is of somebody who is known.
        for entry in sorted(kept, key=lambda entry: entry.negative):
            vector = embedder.embed(_decoded(entry)[None])[0]
            fresh.append(NewEntry(entry.identity, vector, entry.source, entry.crop, entry.negative))
            progress()
        people = {entry.identity for entry in fresh if not entry.negative}
        moved.add_entries([entry for entry in fresh if entry.identity in people])
    return Moved(len(kept), len(entries) - len(kept))


def _write(file: io.BytesIO, binding: Binding, entries: Sequence[Entry]) -> None:
    header = {"format": FORMAT, "version": VERSION, "binding": json.loads(binding.to_json())}
    # Crops of any length in one array: all bytes in a row, and where each ends. No pickle in a file people exchange.
    crops = [entry.crop or b"" for entry in entries]
    np.savez(
        file,
        header=np.array(json.dumps(header)),
        identity=np.array([entry.identity for entry in entries], np.str_),
        source=np.array([entry.source for entry in entries], np.str_),
        negative=np.array([entry.negative for entry in entries], np.bool_),
        vector=np.array([entry.vector for entry in entries], np.float32).reshape(-1, binding.embedding_size),
        crop_bytes=np.frombuffer(b"".join(crops), np.uint8),
        crop_ends=np.cumsum([len(crop) for crop in crops], dtype=np.int64),
    )


def _read(path: Path, key: Key | None) -> tuple[Binding, list[NewEntry]]:
    """Binding and entries of an exported file, people before their negatives; raises InputError or GalleryError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not an exported gallery, it cannot be read ({error.strerror})") from error
    if envelope.is_sealed(data):
        data = envelope.unseal(data, path, key)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            names, sources, vectors = file["identity"], file["source"], file["vector"]
            crop_bytes, ends = file["crop_bytes"].tobytes(), file["crop_ends"]
            # The first version had no negatives.
            negative = file["negative"] if header["version"] > 1 else np.zeros(len(names), np.bool_)
        known = header["format"] == FORMAT and header["version"] in (1, VERSION)
        binding = Binding.from_json(json.dumps(header["binding"]))
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        # NumPy's words of a file that is none of its own recommend to unpickle it: never of somebody else's file.
        raise InputError(f"{path}: not an exported gallery, or damaged; make one with: edge gallery export") from error
    if not known or not len(names) == len(sources) == len(vectors) == len(ends) == len(negative):
        raise InputError(f"{path}: not a gallery exported by this arcedge, or damaged")
    starts = [0, *ends.tolist()][: len(ends)]
    crops = [crop_bytes[start:end] or None for start, end in zip(starts, ends.tolist(), strict=True)]
    rows = zip(names.tolist(), vectors, sources.tolist(), crops, negative.tolist(), strict=True)
    return binding, sorted((NewEntry(*row) for row in rows), key=lambda entry: entry.negative)


def _decoded(entry: Entry) -> Image:
    image = cv2.imdecode(np.frombuffer(entry.crop or b"", np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise GalleryError(
            f"embedding {entry.number} of {entry.identity!r}: its crop is damaged; remove it and enrol again"
        )
    return np.asarray(image, np.uint8)
