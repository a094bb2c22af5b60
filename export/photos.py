"""The photos of one export, each folder found, aligned and accounted for once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge.detect import Detector, Landmarker
from edge.engines import open_session
from edge.types import Image
from export.calibration.photos import Faces, align_photos, list_photos, mosaics
from export.gate import EvaluationPairs, load_pairs
from export.sources import Source

MOSAICS = 48


@contextmanager
def finder(detector: Source, landmarker: Source | None) -> Iterator[Detector]:
    """Finds faces as the runtime does, in FP32."""
    with ExitStack() as opened:
        session = opened.enter_context(open_session(detector.float_model.SerializeToString()))
        if landmarker is None:
            yield Detector(session, detector.contract)
        else:
            closer = opened.enter_context(open_session(landmarker.float_model.SerializeToString()))
            yield Detector(session, detector.contract, landmarker=Landmarker(closer, landmarker.contract))


@dataclass(slots=True)
class Photos:
    """Aligns through the detector in FP32, and the landmarker where there is one. `tell` says what was left out.

    only: of a folder named here, the photos that are used, as paths below it.
    """

    detector: Source
    landmarker: Source | None
    tell: Callable[[str], None]
    quiet: bool
    only: Mapping[Path, frozenset[str]] = field(default_factory=dict)
    _faces: dict[Path, Faces] = field(default_factory=dict)
    _pictures: dict[Path, list[Image]] = field(default_factory=dict)
    _pairs: dict[tuple[Path, Path], EvaluationPairs] = field(default_factory=dict)

    def faces(self, folder: Path) -> Faces:
        """The aligned faces of a folder. Raises InputError where it is unfit."""
        if folder not in self._faces:
            with finder(self.detector, self.landmarker) as detector:
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
            with finder(self.detector, self.landmarker) as detector:
                self._pairs[file, folder] = load_pairs(file, folder, detector, quiet=self.quiet)
        return self._pairs[file, folder]
