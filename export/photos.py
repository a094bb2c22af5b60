"""The photos of one export, each folder found, aligned and accounted for once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge.contract import NO_LANDMARKER
from edge.detect import Detector, Landmarker
from edge.engines import open_session
from edge.types import Image
from edge.weights import find_weights
from export.calibration.photos import Faces, align_photos, list_photos, mosaics
from export.gate import EvaluationPairs, load_pairs
from export.passes import Passes
from export.sources import Source, load_detector, load_landmarker

MOSAICS = 48


@dataclass(frozen=True, slots=True)
class Finder:
    """What finds faces as the runtime does, in FP32. landmarker: None for the detector's own landmarks."""

    detector: Source
    landmarker: Source | None = None

    @classmethod
    def of(cls, detector: str | None, landmarker: str | None) -> Finder:
        """By files or names of weights; None for the default, NO_LANDMARKER for none. Raises InputError."""
        found = load_detector(find_weights(detector, "detector"), Passes())
        return cls(found, named_landmarker(landmarker, Passes()))

    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) of the files by role."""
        return {one.contract.role: one.digest for one in (self.detector, self.landmarker) if one is not None}

    @contextmanager
    def open(self) -> Iterator[Detector]:
        """The detector, opened."""
        with ExitStack() as opened:
            session = opened.enter_context(open_session(self.detector.float_model.SerializeToString()))
            closer = None
            if self.landmarker is not None:
                model = self.landmarker.float_model.SerializeToString()
                closer = Landmarker(opened.enter_context(open_session(model)), self.landmarker.contract)
            yield Detector(session, self.detector.contract, landmarker=closer)


def named_landmarker(name: str | None, passes: Passes) -> Source | None:
    """Of a file or a name of weights; None for the default, NO_LANDMARKER for none. Raises InputError."""
    return None if name == NO_LANDMARKER else load_landmarker(find_weights(name, "landmarker"), passes)


@dataclass(slots=True)
class Photos:
    """Finds and aligns faces. `tell` says what was left out.

    only: of a folder named here, the photos that are used, as paths below it.
    """

    finder: Finder
    tell: Callable[[str], None]
    quiet: bool
    only: Mapping[Path, frozenset[str]] = field(default_factory=dict)
    _faces: dict[Path, Faces] = field(default_factory=dict)
    _pictures: dict[Path, list[Image]] = field(default_factory=dict)
    _pairs: dict[tuple[Path, Path], EvaluationPairs] = field(default_factory=dict)

    def faces(self, folder: Path) -> Faces:
        """The aligned faces of a folder. Raises InputError where it is unfit."""
        if folder not in self._faces:
            with self.finder.open() as detector:
                faces = align_photos(folder, detector, only=self.only.get(folder), quiet=self.quiet)
            for reason, paths in (("no face found", faces.faceless), ("cannot be read", faces.unreadable)):
                if paths:
                    names = ", ".join(path.relative_to(folder).as_posix() for path in paths[:5])
                    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
                    self.tell(f"left out, {reason}: {names}{more}")
            self._faces[folder] = faces
        return self._faces[folder]

    def pictures(self, folder: Path) -> list[Image]:
        """Pictures with the folder's photos at several sizes, for a detector."""
        if folder not in self._pictures:
            self._pictures[folder] = mosaics(list_photos(folder, self.only.get(folder)), MOSAICS)
        return self._pictures[folder]

    def pairs(self, file: Path, folder: Path) -> EvaluationPairs:
        """LFW-style pairs, their pictures detected and aligned. Raises InputError where files are missing or unfit."""
        if (file, folder) not in self._pairs:
            with self.finder.open() as detector:
                self._pairs[file, folder] = load_pairs(file, folder, detector, quiet=self.quiet)
        return self._pairs[file, folder]
