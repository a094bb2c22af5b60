"""The photos of one export, each folder found, aligned and accounted for once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.detect import Detector
from edge.engines import open_session
from edge.types import Image
from export.calibration.photos import Faces, align_photos, list_photos, mosaics
from export.gate import EvaluationPairs, load_pairs
from export.sources import Source

MOSAICS = 48


@dataclass(slots=True)
class Photos:
    """Aligns through the detector in FP32. `tell` says what was left out.

    only: of a folder named here, the photos that are used, as paths below it.
    """

    detector: Source
    tell: Callable[[str], None]
    quiet: bool
    only: Mapping[Path, frozenset[str]] = field(default_factory=dict)
    _faces: dict[Path, Faces] = field(default_factory=dict)
    _pictures: dict[Path, list[Image]] = field(default_factory=dict)
    _pairs: dict[tuple[Path, Path], EvaluationPairs] = field(default_factory=dict)

    def faces(self, folder: Path) -> Faces:
        """The aligned faces of a folder. Raises InputError where it is unfit."""
        if folder not in self._faces:
            with open_session(self.detector.float_model.SerializeToString()) as session:
                faces = align_photos(
                    folder, Detector(session, self.detector.contract), only=self.only.get(folder), quiet=self.quiet
                )
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
            with open_session(self.detector.float_model.SerializeToString()) as session:
                detector = Detector(session, self.detector.contract)
                self._pairs[file, folder] = load_pairs(file, folder, detector, quiet=self.quiet)
        return self._pairs[file, folder]
