"""`edge export`, step by step: load, calibrate, build, judge, and only then write."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge import __version__
from edge.bundle import Bundle
from edge.contract import NO_LANDMARKER
from edge.detect import WORKING_SCORE
from edge.errors import InputError
from edge.manifest import Threshold
from edge.selftest import ENTRY as SELF_TEST
from edge.signatures import to_entry
from edge.signing import SigningKey
from edge.weights import find_weights
from export.calibration.calibrate import split_held_out
from export.calibration.photos import read_training_part
from export.calibration.table import CalibrationTable, read_finder, read_tables, write_tables
from export.choosing import MOST_TO_CHOOSE, AccuracyChoice, as_line
from export.detection_scores import FittedScores, fit_detection_scores
from export.graph import parameters_digest
from export.judging import EmbedderJudge, judge_detector, judge_landmarker
from export.labelled import LabelledFaces
from export.passes import Passes
from export.photos import Finder, Photos, named_landmarker
from export.plausibility import require_plausible
from export.repairing import decide, require_layers, with_named
from export.request import ExportRequest
from export.selftest import self_test_entry
from export.sources import (
    CALIBRATION_SUFFIX,
    Source,
    load_detector,
    load_embedder_checkpoint,
    load_embedder_onnx,
)
from export.subject import subject_of
from export.thresholds import DEFAULT_FAR
from export.tradeoff import TradeOff
from export.tradeoff_report import as_text, write_report
from export.variants import Built, build_variants, calibrate_detector, calibrate_embedder, equalised_source
from export.writer import Artefact, require_writable, write_bundle

TOOLS = ("torch", "onnx", "onnxruntime", "numpy")


@dataclass(slots=True)
class ExportResult:
    """The bundle, and what the passes did by role."""

    bundle: Bundle
    passes: dict[str, Passes]


def export(request: ExportRequest, tell: Callable[[str], None] = lambda _: None) -> ExportResult:
    """Makes a bundle. Raises EdgeError in one line; GateError (exit code 3) where a variant is outside its budget.

    Nothing is written before everything has been judged.
    """
    require_writable(request.out)
    key = SigningKey.read(request.sign) if request.sign is not None else None
    _require_inputs(request)
    training_part = _training_part(request)
    passes = {"embedder": Passes(), "detector": Passes(), "landmarker": Passes()}
    detector = load_detector(find_weights(request.detector, "detector"), passes["detector"])
    landmarker = named_landmarker(request.landmarker, passes["landmarker"])
    embedder = _embedder(request, passes["embedder"])
    placing = "no landmarker" if landmarker is None else f"landmarker {landmarker.path.name}"
    tell(f"embedder {embedder.path.name}, detector {detector.path.name}, {placing}")
    photos = Photos(Finder(detector, landmarker), tell, request.quiet, training_part)
    tables = _tables(request, embedder, detector, photos)
    tables, trade_offs = _decided(request, (embedder, detector), tables, photos)
    artefacts = [
        *_embedder_artefacts(request, embedder, tables.get("embedder"), photos, passes["embedder"]),
        *_detector_artefacts(request, detector, tables.get("detector"), photos, passes["detector"]),
        *(_landmarker_artefacts(request, landmarker, photos, passes["landmarker"]) if landmarker is not None else ()),
    ]
    artefacts = [_with_trade_off(artefact, trade_offs) for artefact in artefacts]
    fitted = _detection_scores(request, detector, tables.get("detector"), artefacts, tell)
    artefacts = [replace(artefact, detection_score=fitted.scores.get(artefact.name)) for artefact in artefacts]
    if request.scenes is not None and "detector" in tables:
        kept = replace(tables["detector"], detection_scores=fitted.scores, scenes=fitted.pictures)
        tables = {**tables, "detector": kept}
    provenance = _provenance([s for s in (embedder, detector, landmarker) if s is not None], tables, passes)
    if request.pairs_from is not None:
        provenance["calibration"]["threshold"] = to_entry(photos.faces(request.pairs_from).with_face)
    if fitted.scores:
        provenance["calibration"]["detection_score"] = to_entry(fitted.pictures)
    bundle = write_bundle(request.out, artefacts, provenance, key=key)
    if request.save_calibration is not None:
        thresholds = {a.name: a.threshold for a in artefacts if a.threshold is not None}
        by_photos = request.pairs_from is not None or (request.calibration is not None and request.calibration.is_dir())
        beside = embedder.beside(CALIBRATION_SUFFIX)
        finder = photos.finder.digests() if by_photos or beside is None else read_finder(beside)
        _save(request, list(tables.values()), thresholds, finder, tell)
    return ExportResult(bundle, passes)


def _require_inputs(request: ExportRequest) -> None:
    """Before anything slow is done: a mistyped path is told at once."""
    if request.onnx is None:
        find_weights(request.weights, "embedder")
    if request.landmarker != NO_LANDMARKER:
        find_weights(request.landmarker, "landmarker")
    for named, what in (
        (request.onnx, "ONNX file"),
        (request.contract, "contract file"),
        (request.calibration, "folder of photos or calibration table"),
        (request.pairs_from, "folder of identities"),
        (request.scenes, "folder of photographs"),
        (request.evaluate, "list of pairs"),
        (request.images, "folder of pictures"),
    ):
        if named is not None and not named.exists():
            raise InputError(f"{named}: no such {what}")


def _embedder(request: ExportRequest, passes: Passes) -> Source:
    if request.onnx is None:
        return load_embedder_checkpoint(find_weights(request.weights, "embedder"), passes)
    if request.contract is None:
        raise InputError("--onnx needs --contract FILE.toml, which says how the model is fed")
    return load_embedder_onnx(request.onnx, request.contract, passes)


def _training_part(request: ExportRequest) -> dict[Path, frozenset[str]]:
    if request.split is None:
        return {}
    if request.calibration is None or not request.calibration.is_dir():
        raise InputError("--split chooses among photos; name their folder with --calibration")
    return {request.calibration: read_training_part(request.split)}


def _tables(request: ExportRequest, embedder: Source, detector: Source, photos: Photos) -> dict[str, CalibrationTable]:
    folder = request.calibration
    if folder is None or not folder.is_dir():
        beside = [path for source in (embedder, detector) if (path := source.beside(CALIBRATION_SUFFIX)) is not None]
        stored = {s.contract.role: _stored_table(request, s, beside, photos.tell) for s in (embedder, detector)}
        return {role: table for role, table in stored.items() if table is not None}
    faces = photos.faces(folder)
    photos.tell(f"calibration: {len(faces.crops)} faces in {folder}")
    if embedder.fed_as is not None and embedder.stated is not None:
        require_plausible(embedder.stated, embedder.fed_as, faces.crops, faces.labels)
    tables = {
        "embedder": calibrate_embedder(
            embedder, faces.crops, faces.digest, choose=_choice(request, embedder, photos), quiet=request.quiet
        ),
        "detector": calibrate_detector(detector, photos.pictures(folder), faces.digest, quiet=request.quiet),
    }
    # What judged the methods was seen as well: it is recorded with what the ranges were taken from.
    seen = {"embedder": faces.with_face, "detector": tuple(faces.signatures.values())}
    tables = {role: replace(table, pictures=seen[role]) for role, table in tables.items()}
    for role, table in tables.items():
        photos.tell(f"{role}: ranges by {table.method} ({table.judged[table.method]:.5f} on held-out pictures)")
        if table.compared:
            figures = ", ".join(f"{name} {figure:.5f}" for name, figure in table.compared.items())
            photos.tell(f"{role}: {table.figure:.5f} taken of {figures}")
        if table.accuracy:
            photos.tell(as_line(role, table.accuracy))
    return tables


def _choice(request: ExportRequest, embedder: Source, photos: Photos) -> AccuracyChoice | None:
    """Judges methods on the people of --pairs-from, else on held-out photos; None where nobody is known by name."""
    folder = request.calibration
    if request.pairs_from is not None:
        people = photos.faces(request.pairs_from)
        known = LabelledFaces(people.crops, people.labels, f"{len(people.crops)} crops of {request.pairs_from.name}")
    elif folder is not None:
        own = photos.faces(folder)
        held = split_held_out(len(own.crops))[1]
        known = LabelledFaces(own.crops[held], own.labels[held], f"{len(held)} held-out calibration crops")
    known = known.at_most(MOST_TO_CHOOSE)
    return AccuracyChoice(embedder, known, request.far or DEFAULT_FAR) if known.comparable else None


def _decided(
    request: ExportRequest, sources: Sequence[Source], tables: Mapping[str, CalibrationTable], photos: Photos
) -> tuple[dict[str, CalibrationTable], dict[str, TradeOff]]:
    """The tables with the layers that stay in float, and what those buy and cost, where one asks or one is needed."""
    moved = [equalised_source(s, tables[s.contract.role]) for s in sources if s.contract.role in tables]
    require_layers(request.keep, moved)
    decided, trade_offs = dict(tables), dict[str, TradeOff]()
    if "int8" not in request.precisions:
        return decided, trade_offs
    for source in (source for source in sources if source.contract.role in tables):
        role = source.contract.role
        table, least = with_named(source, tables[role], request.keep), request.budget.least_figure(role)
        decided[role] = table
        repairable = (
            request.repair and not table.keep and request.calibration is not None and request.calibration.is_dir()
        )
        if request.report is None and not (repairable and table.figure < least):
            continue
        decision = decide(subject_of(source, table, request, photos), least, request, photos.tell)
        decided[role] = decision.table
        if decision.trade_off is not None:
            trade_offs[role] = decision.trade_off
            photos.tell(as_text(decision.trade_off))
    if request.report is not None and trade_offs:
        for path in write_report(list(trade_offs.values()), request.report):
            photos.tell(f"report: {path}")
    return decided, trade_offs


def _with_trade_off(artefact: Artefact, trade_offs: Mapping[str, TradeOff]) -> Artefact:
    found = trade_offs.get(artefact.contract.role)
    if found is None or artefact.precision != "int8":
        return artefact
    return replace(artefact, measured={**artefact.measured, "trade_off": found.summary()})


def _stored_table(
    request: ExportRequest, source: Source, beside: Sequence[Path], tell: Callable[[str], None]
) -> CalibrationTable | None:
    """The table for these weights, of the file named, else of those `beside` them; None where no INT8 is asked for."""
    role, digest, named = source.contract.role, parameters_digest(source.float_model), request.calibration
    refused: CalibrationTable | None = None
    for file in ([named] if named is not None else []) + list(beside):
        for table in (table for table in read_tables(file) if table.role == role):
            if table.parameters == digest:
                if file != named:
                    tell(f"{role}: calibrated by the table beside the weights, {file.name}")
                return table
            refused = refused or table
    if "int8" not in request.precisions:
        return None
    if refused is not None:
        refused.require_fit(digest, ())
    raise InputError(
        f"no calibration for the {role} {source.path.name}: no table beside it; "
        "name a folder of photos with --calibration, or leave int8 out with --precision fp32,fp16"
    )


def _embedder_artefacts(
    request: ExportRequest, source: Source, table: CalibrationTable | None, photos: Photos, passes: Passes
) -> list[Artefact]:
    judge = EmbedderJudge(source, request, photos)
    every = build_variants(source, request.precisions, table, passes, targets=request.targets)
    return [_artefact(source, built, *judge.judge(built)) for built in every]


def _detector_artefacts(
    request: ExportRequest, source: Source, table: CalibrationTable | None, photos: Photos, passes: Passes
) -> list[Artefact]:
    folder = request.calibration
    pictures = photos.pictures(folder) if folder is not None and folder.is_dir() else []
    every = build_variants(source, request.precisions, table, passes, targets=request.targets)
    return [_artefact(source, built, judge_detector(source, built, pictures, request)) for built in every]


def _landmarker_artefacts(request: ExportRequest, source: Source, photos: Photos, passes: Passes) -> list[Artefact]:
    """In FP32, which every other precision may fall back to, and in FP16 where that is asked for.

    Not in INT8: a face takes a fourteenth of the embedder's multiply-adds, and steps of eight bits move landmarks.
    """
    folder = request.calibration
    faces = photos.faces(folder).crops if folder is not None and folder.is_dir() else None
    precisions = ("fp32", *(("fp16",) if "fp16" in request.precisions else ()))
    every = build_variants(source, precisions, None, passes)
    return [_artefact(source, built, judge_landmarker(source, built, faces, request)) for built in every]


def _artefact(
    source: Source, built: Built, measured: Mapping[str, Any], threshold: Threshold | None = None
) -> Artefact:
    test = self_test_entry(built.data, source.float_model.SerializeToString(), source.contract, built.precision)
    notes = {**built.notes, **measured, SELF_TEST: test}
    return Artefact(built.name, built.precision, source.contract, built.data, built.engine, threshold, notes)


def _detection_scores(
    request: ExportRequest,
    source: Source,
    table: CalibrationTable | None,
    artefacts: Sequence[Artefact],
    tell: Callable[[str], None],
) -> FittedScores:
    """Fitted on --scenes, else what the table keeps of an export that did."""
    finders = {artefact.name: artefact.data for artefact in artefacts if artefact.contract.role == "detector"}
    if request.scenes is not None:
        return fit_detection_scores(source, finders, request.scenes, tell, quiet=request.quiet)
    # A score belongs to the working score of FP32 that it was fitted for.
    stored = {} if table is None else table.detection_scores
    known = {name: one for name, one in stored.items() if name in finders and one.reference == WORKING_SCORE}
    if table is not None and known:
        return FittedScores(known, table.scenes)
    if any(artefact.name in finders and artefact.precision != "fp32" for artefact in artefacts):
        tell(
            f"no detection score was fitted, every precision takes FP32's, {WORKING_SCORE:g}: name a folder of whole "
            "photographs with --scenes DIR"
        )
    return FittedScores()


def _save(
    request: ExportRequest,
    tables: list[CalibrationTable],
    thresholds: dict[str, Threshold],
    finder: dict[str, str] | None,
    tell: Callable[[str], None],
) -> None:
    if request.save_calibration is not None:
        write_tables(request.save_calibration, tables, thresholds, finder)
        tell(f"calibration table: {request.save_calibration}")


def _provenance(
    sources: Sequence[Source], tables: dict[str, CalibrationTable], passes: dict[str, Passes]
) -> dict[str, Any]:
    return {
        "arcedge": __version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "tools": {name: version(name) for name in TOOLS},
        **{s.contract.role: {"file": s.path.name, "sha256": s.digest, "kind": s.kind} for s in sources},
        "calibration": {
            role: {"data": table.data, "count": table.count, "method": table.method, **to_entry(table.pictures)}
            for role, table in tables.items()
        },
        "passes": {role: [str(record) for record in log.records] for role, log in passes.items() if log.records},
    }
