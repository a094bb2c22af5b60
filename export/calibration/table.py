"""The calibration table: ranges by tensor name, kept beside the weights so that an export needs no photo."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.errors import BundleError, InputError
from edge.manifest import DetectionScore, Threshold
from edge.signatures import PictureSignature, from_entry, to_entry

FORMAT = "arcedge-calibration"
VERSION = 1


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """Ranges of one graph's tensors over calibration pictures.

    role: of the model. parameters: digest of its weights (export.graph.parameters_digest); the table fits no others.
    method: how the ranges were chosen, one of METHODS. tensors: name → (low, high).
    data: SHA-256 over the pictures; count: how many there were. judged: what each method scored on held-out pictures.
    keep: layers, by output tensor, that stay in float so that INT8 is within its budget.
    pictures: what names each of the pictures (edge.signatures); empty where it was not recorded.
    factors: by bus (export.passes.equalise), what the model is equalised with before anything else; `tensors` are of
    that model. shifts: by layer, what INT8 adds to the biases of that model (export.passes.shift_biases).
    compared: what INT8 scored on held-out pictures as it is, equalised, with biases corrected, and with both.
    accuracy: TAR and cosine by method on faces of known people, and why the method was taken (export.choosing); empty
    where nobody is known.
    detection_scores: of a detector, by variant (export.detection_scores); scenes: what names each of the pictures that
    they were fitted on.
    """

    role: str
    parameters: str
    method: str
    tensors: Mapping[str, tuple[float, float]]
    data: str
    count: int
    judged: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    pictures: tuple[PictureSignature, ...] = ()
    factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shifts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    compared: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    detection_scores: Mapping[str, DetectionScore] = field(default_factory=dict)
    scenes: tuple[PictureSignature, ...] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in self.tensors.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InputError(f"calibration table: the range of {name} is [{low}, {high}]; calibrate again")
        if not self.tensors or self.count < 1:
            raise InputError("calibration table: holds no range; calibrate again")

    @property
    def figure(self) -> float:
        """What INT8 scored on held-out pictures, with all that the table says; 0 where it was not judged."""
        words = [word for word, what in (("equalised", self.factors), ("biases corrected", self.shifts)) if what]
        return self.compared.get(", ".join(words) or "as it is", self.judged.get(self.method, 0.0))

    def keeping(self, layers: Iterable[str]) -> CalibrationTable:
        """The table with these layers alone in float; without the detection scores, which are of another INT8 then."""
        keep = frozenset(layers)
        same = keep == frozenset(self.keep)
        return self if same else replace(self, keep=tuple(sorted(keep)), detection_scores={}, scenes=())

    def require_fit(self, parameters: str, tensors: Sequence[str]) -> None:
        """Raises InputError unless the table was made for these weights and has these tensors."""
        if parameters != self.parameters:
            raise InputError(
                f"the calibration table was made for other {self.role} weights ({self.parameters[:12]}, "
                f"these are {parameters[:12]}); calibrate on photos: --calibration DIR"
            )
        self.require_tensors(tensors)

    def require_tensors(self, tensors: Sequence[str]) -> None:
        """Raises InputError unless the table has a range for each of them."""
        if missing := [name for name in tensors if name not in self.tensors]:
            raise InputError(
                f"the calibration table has no range for {missing[0]} ({len(missing)} tensors); "
                "calibrate on photos: --calibration DIR"
            )


def write_tables(
    path: Path,
    tables: Sequence[CalibrationTable],
    thresholds: Mapping[str, Threshold] | None = None,
    finder: Mapping[str, str] | None = None,
) -> None:
    """Writes tables as JSON, ranges rounded to what float32 holds, whole or not at all.

    thresholds: by variant, for the embedder of the tables, so that an export without photos has them too. finder: what
    found the faces they were fitted on, see `export.photos.Finder.digests`.

    Raises InputError where the file cannot be written.
    """
    entries = []
    for table in tables:
        entry = asdict(table)
        entry["tensors"] = {name: [as_written(low), as_written(high)] for name, (low, high) in table.tensors.items()}
        entry["pictures"] = to_entry(table.pictures)
        if table.detection_scores:
            entry["scenes"] = to_entry(table.scenes)
        else:
            del entry["detection_scores"], entry["scenes"]
        entries.append(entry)
    stated = {name: asdict(threshold) for name, threshold in (thresholds or {}).items()}
    values: dict[str, Any] = {"format": FORMAT, "version": VERSION, "tables": entries, "thresholds": stated}
    if finder is not None:
        values["finder"] = dict(finder)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def read_tables(path: Path) -> tuple[CalibrationTable, ...]:
    """Reads tables. Raises InputError where the file is none, damaged, or of another version."""
    values = _read(path)
    try:
        return tuple(_table(entry) for entry in values["tables"])
    except (KeyError, TypeError, ValueError, AttributeError, BundleError) as error:
        raise InputError(f"{path}: the calibration table is damaged ({error}); calibrate again") from error


def read_thresholds(path: Path) -> dict[str, Threshold]:
    """The thresholds stored with the tables, by variant. Raises InputError as `read_tables` does."""
    try:
        return {name: Threshold(**entry) for name, entry in _read(path).get("thresholds", {}).items()}
    except (TypeError, AttributeError, BundleError) as error:
        raise InputError(f"{path}: a stored threshold is damaged ({error}); calibrate again") from error


def read_finder(path: Path) -> dict[str, str] | None:
    """What found the faces the thresholds were fitted on; None where the file does not say. Raises InputError."""
    found = _read(path).get("finder")
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{path}: the calibration table is damaged (finder); calibrate again")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a folder of photos or a table") from error
    except ValueError as error:
        raise InputError(f"{path}: not a calibration table ({error}); name a folder of photos or a table") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{path}: not a calibration table; name a folder of photos or a table")
    if values.get("version") != VERSION:
        raise InputError(f"{path}: table version {values.get('version')!r}, {VERSION} is read here; calibrate again")
    return values


def _table(entry: Mapping[str, Any]) -> CalibrationTable:
    tensors = {name: (float(low), float(high)) for name, (low, high) in entry["tensors"].items()}
    keep, pictures = tuple(entry.get("keep", ())), from_entry(entry.get("pictures", {}))
    channels = {
        what: {name: tuple(float(value) for value in values) for name, values in entry.get(what, {}).items()}
        for what in ("factors", "shifts")
    }
    found = {
        "detection_scores": {name: DetectionScore(**one) for name, one in entry.get("detection_scores", {}).items()},
        "scenes": from_entry(entry.get("scenes", {})),
    }
    return CalibrationTable(**{**entry, "tensors": tensors, "keep": keep, "pictures": pictures, **channels, **found})


def as_written(value: float) -> float:
    """A limit of a range rounded to what float32 holds, as it stands in a table's file."""
    return float(f"{value:.9g}")
