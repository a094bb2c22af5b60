"""`edge export`, step by step: load, calibrate, build, judge, fit thresholds, and only then write."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge import __version__
from edge.bundle import Bundle
from edge.detect import Detector
from edge.engines import open_session
from edge.errors import GateError, InputError
from edge.manifest import PRECISIONS, Threshold
from edge.types import Floats, Image
from edge.weights import find_weights
from export.agreement import compare_detections, compare_embeddings, detect_with, embed_with
from export.calibration.photos import Faces, align_photos, list_photos, mosaics, synthetic_crops
from export.calibration.table import CalibrationTable, read_tables, write_tables
from export.graph import parameters_digest
from export.passes import Passes
from export.sources import Source, load_detector, load_embedder_checkpoint, load_embedder_onnx
from export.thresholds import DEFAULT_FAR, accepted_share, card_threshold, fit_threshold
from export.variants import Built, build_variants, calibrate_detector, calibrate_embedder, held_out
from export.writer import Artefact, require_writable, write_bundle

MOSAICS = 48
SYNTHETIC_CROPS = 16

MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.97}
"""Least mean cosine to the reference a variant may have, where the user states none."""

MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.98, "int8": 0.80}
"""Least agreement (export.agreement) of a detector variant with FP32."""

CALIBRATION_SUFFIX = ".calibration.json"
CARD_SUFFIX = ".card.json"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the user asked for; see `edge export --help`.

    weights or onnx with contract; calibration: folder or table, None for the table beside the weights; far: None for
    the card's or DEFAULT_FAR; min_cosine: of the INT8 embedder, None for MIN_COSINE.
    """

    out: Path
    weights: str | None = None
    onnx: Path | None = None
    contract: Path | None = None
    detector: str | None = None
    calibration: Path | None = None
    precisions: tuple[str, ...] = PRECISIONS
    targets: tuple[str, ...] = ("onnx",)
    far: float | None = None
    pairs_from: Path | None = None
    min_cosine: float | None = None
    save_calibration: Path | None = None
    quiet: bool = False


@dataclass(slots=True)
class ExportResult:
    """The bundle, what the passes did, and what the user should be told."""

    bundle: Bundle
    passes: dict[str, Passes]
    notes: list[str] = field(default_factory=list)


def export(request: ExportRequest, say: Callable[[str], None] = lambda _: None) -> ExportResult:
    """Makes a bundle. Raises EdgeError in one line; GateError (exit code 3) where a variant is outside its budget.

    Nothing is written before everything has been judged.
    """
    require_writable(request.out)
    run = _Export(request, say)
    return run.result()


class _Export:
    """One export: what the steps share."""

    def __init__(self, request: ExportRequest, say: Callable[[str], None]) -> None:
        self.request = request
        self.notes: list[str] = []
        self._say = say
        self.passes = {"embedder": Passes(), "detector": Passes()}

    def tell(self, text: str) -> None:
        self.notes.append(text)
        self._say(text)

    def result(self) -> ExportResult:
        detector = load_detector(find_weights(self.request.detector, "detector"), self.passes["detector"])
        embedder = self._embedder()
        self._say(f"embedder {embedder.path.name}, detector {detector.path.name}")
        faces = self._faces(detector)
        tables = self._tables(embedder, detector, faces)
        artefacts = [
            *self._embedder_artefacts(embedder, detector, tables.get("embedder"), faces),
            *self._detector_artefacts(detector, tables.get("detector")),
        ]
        if self.request.save_calibration is not None and tables:
            write_tables(self.request.save_calibration, list(tables.values()))
            self.tell(f"calibration table: {self.request.save_calibration}")
        bundle = write_bundle(self.request.out, artefacts, self._provenance(embedder, detector, tables))
        return ExportResult(bundle, self.passes, self.notes)

    def _embedder(self) -> Source:
        request = self.request
        if request.onnx is not None:
            if request.contract is None:
                raise InputError("--onnx needs --contract FILE.toml, which says how the model is fed")
            return load_embedder_onnx(request.onnx, request.contract, self.passes["embedder"])
        return load_embedder_checkpoint(find_weights(request.weights, "embedder"), self.passes["embedder"])

    def _faces(self, detector: Source) -> Faces | None:
        folder = self.request.calibration
        if folder is None or not folder.is_dir():
            return None
        faces = self._align(folder, detector)
        self.tell(f"calibration: {len(faces.crops)} faces in {folder}")
        return faces

    def _align(self, folder: Path, detector: Source) -> Faces:
        with open_session(detector.float_model.SerializeToString()) as session:
            faces = align_photos(folder, Detector(session, detector.contract), quiet=self.request.quiet)
        for reason, paths in (("no face found", faces.faceless), ("not a picture", faces.unreadable)):
            if paths:
                names = ", ".join(path.relative_to(folder).as_posix() for path in paths[:5])
                more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
                self.tell(f"left out, {reason}: {names}{more}")
        return faces

    def _tables(self, embedder: Source, detector: Source, faces: Faces | None) -> dict[str, CalibrationTable]:
        if faces is not None and self.request.calibration is not None:
            quiet = self.request.quiet
            pictures = mosaics(list_photos(self.request.calibration), MOSAICS)
            tables = {
                "embedder": calibrate_embedder(embedder, faces.crops, faces.digest, quiet=quiet),
                "detector": calibrate_detector(detector, pictures, faces.digest, quiet=quiet),
            }
            for role, table in tables.items():
                self.tell(f"{role}: ranges by {table.method} ({table.judged[table.method]:.5f} on held-out pictures)")
            return tables
        stored = {source.contract.role: self._stored_table(source) for source in (embedder, detector)}
        return {role: table for role, table in stored.items() if table is not None}

    def _stored_table(self, source: Source) -> CalibrationTable | None:
        """The table for these weights: the one named, else the one beside the weights; None where no INT8 is asked
        for.
        """
        role, digest = source.contract.role, parameters_digest(source.float_model)
        named = self.request.calibration
        files = [path for path in (named, source.beside(CALIBRATION_SUFFIX)) if path is not None]
        for file in files:
            tables = [table for table in read_tables(file) if table.role == role]
            if fitting := [table for table in tables if table.parameters == digest]:
                if file != named:
                    self.tell(f"{role}: calibrated by the table beside the weights, {file.name}")
                return fitting[0]
            if tables:
                tables[0].require_fit(digest, ())
        if "int8" in self.request.precisions:
            raise InputError(
                f"no calibration for the {role} {source.path.name}: no table beside it; "
                "name a folder of photos with --calibration, or leave int8 out with --precision fp32,fp16"
            )
        return None

    def _embedder_artefacts(
        self, source: Source, detector: Source, table: CalibrationTable | None, faces: Faces | None
    ) -> list[Artefact]:
        request = self.request
        crops, on = (
            (held_out(faces.crops), "held-out calibration crops")
            if faces is not None
            else (synthetic_crops(SYNTHETIC_CROPS), "synthetic crops: mechanics only")
        )
        assert source.reference is not None  # every embedder source has one
        reference = source.reference(crops)
        pairs = self._pairs(detector, faces)
        artefacts = []
        for built in build_variants(
            source, request.precisions, table, self.passes["embedder"], targets=request.targets
        ):
            measured = self._judge_embedder(built, source, crops, reference, on, judged=faces is not None)
            threshold, figures = self._threshold(built, source, pairs)
            artefacts.append(
                Artefact(
                    built.name,
                    built.precision,
                    source.contract,
                    built.data,
                    built.engine,
                    threshold,
                    {**built.notes, **measured, **figures},
                )
            )
        return artefacts

    def _judge_embedder(
        self, built: Built, source: Source, crops: Image, reference: Floats, on: str, *, judged: bool
    ) -> dict[str, Any]:
        agreement = compare_embeddings(embed_with(built.data, source.contract, crops), reference, on)
        least = MIN_COSINE[built.precision]
        if built.precision == "int8" and self.request.min_cosine is not None:
            least = self.request.min_cosine
        # What eight bits keep of faces cannot be seen on pictures that show none.
        if agreement.mean_cosine < least and (judged or built.precision != "int8"):
            raise GateError(
                f"{built.name}: mean cosine {agreement.mean_cosine:.5f} to the reference over {agreement.count} {on}, "
                f"the budget is {least}; nothing was written"
            )
        return {"agreement": agreement.to_dict()}

    def _pairs(self, detector: Source, faces: Faces | None) -> tuple[Faces, str] | None:
        """The faces thresholds are fitted on: those of --pairs-from, else the calibration's where they show several
        people.
        """
        folder = self.request.pairs_from
        if folder is not None:
            return self._align(folder, detector), f"all pairs of {folder.name}"
        if faces is not None and len(set(faces.identities)) > 1:
            return faces, "all pairs of the calibration photos"
        return None

    def _threshold(
        self, built: Built, source: Source, pairs: tuple[Faces, str] | None
    ) -> tuple[Threshold | None, dict[str, Any]]:
        far = self.request.far
        if self.request.pairs_from is None and (card := source.beside(CARD_SUFFIX)) is not None:
            stated = card_threshold(card, built.precision, far)
            if stated is not None:
                return stated, {}
        if pairs is None:
            if built.precision == self.request.precisions[0]:
                self.tell("no threshold was fitted: name a folder of identities with --pairs-from DIR")
            return None, {}
        faces, words = pairs
        embeddings = embed_with(built.data, source.contract, faces.crops)
        threshold = fit_threshold(embeddings, faces.labels, far or DEFAULT_FAR, words)
        accepted = accepted_share(embeddings, faces.labels, far or DEFAULT_FAR)
        return threshold, {"tar_at_far": accepted} if accepted else {}

    def _detector_artefacts(self, source: Source, table: CalibrationTable | None) -> list[Artefact]:
        request = self.request
        built = build_variants(source, request.precisions, table, self.passes["detector"], targets=request.targets)
        folder = request.calibration
        pictures = mosaics(list_photos(folder), MOSAICS) if folder is not None and folder.is_dir() else []
        judges = [picture for i, picture in enumerate(pictures) if i % 4 == 3]
        reference = detect_with(source.float_model.SerializeToString(), source.contract, judges)
        artefacts = []
        for variant in built:
            measured: dict[str, Any] = dict(variant.notes)
            if judges:
                found = detect_with(variant.data, source.contract, judges)
                agreement = compare_detections(found, reference)
                least = MIN_AGREEMENT[variant.precision]
                if agreement.faces and agreement.figure < least:
                    raise GateError(
                        f"{variant.name}: agreement {agreement.figure:.4f} with FP32 over {agreement.faces} faces, "
                        f"the budget is {least}; nothing was written"
                    )
                measured["agreement"] = agreement.to_dict()
            artefacts.append(
                Artefact(
                    variant.name, variant.precision, source.contract, variant.data, variant.engine, measured=measured
                )
            )
        return artefacts

    def _provenance(self, embedder: Source, detector: Source, tables: dict[str, CalibrationTable]) -> dict[str, Any]:
        return {
            "arcedge": __version__,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "tools": _tools(("torch", "onnx", "onnxruntime", "numpy")),
            "embedder": {"file": embedder.path.name, "sha256": embedder.digest, "kind": embedder.kind},
            "detector": {"file": detector.path.name, "sha256": detector.digest, "kind": detector.kind},
            "calibration": {
                role: {"data": table.data, "count": table.count, "method": table.method}
                for role, table in tables.items()
            },
            "passes": {role: [str(record) for record in log.records] for role, log in self.passes.items()},
        }


def _tools(names: Sequence[str]) -> dict[str, str]:
    return {name: version(name) for name in names}
