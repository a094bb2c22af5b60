"""What is compared: the variants of bundles, each opened on an engine with its own detector and embedder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.auto import AUTO, choose_engine
from edge.bundle import Bundle
from edge.detect import DetectorOptions
from edge.engines import ENGINES, REMOTE_ENGINES, SessionOptions, get_engine
from edge.errors import BundleError, EngineError, InputError
from edge.manifest import PRECISIONS

ALL_ENGINES = "all"


@dataclass(frozen=True, slots=True)
class Subject:
    """A variant under test.

    label: "INT8", with the engine where several are compared, and after the bundle's name where several are.
    reference: the label of the highest precision of the same bundle, from which drift is measured.
    """

    label: str
    precision: str
    engine: str
    options: AnalyzerOptions
    bundle: Bundle
    reference: str

    def open(self) -> FaceAnalyzer:
        """Opens its models."""
        return FaceAnalyzer(self.bundle, self.options)

    def describe(self, analyzer: FaceAnalyzer) -> dict[str, Any]:
        """Files, sizes and digests of what was opened, for the report."""
        embedder, detector = analyzer.embedder_variant, analyzer.detector_variant
        landmarker = analyzer.landmarker_variant
        return {
            "label": self.label,
            "bundle": name_of(self.bundle.path),
            "reference": self.reference,
            "precision": self.precision,
            "engine": self.engine,
            "embedder": {"name": embedder.name, "bytes": embedder.size, "sha256": embedder.sha256},
            "detector": {
                "name": detector.name,
                "precision": detector.precision,
                "bytes": detector.size,
                "sha256": detector.sha256,
            },
            "landmarker": None
            if landmarker is None
            else {"name": landmarker.name, "bytes": landmarker.size, "sha256": landmarker.sha256},
            "threshold": None
            if embedder.threshold is None
            else {
                "similarity": embedder.threshold.similarity,
                "far": embedder.threshold.far,
                "pairs": embedder.threshold.pairs,
                "source": embedder.threshold.source,
            },
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """precisions: None for all of a bundle. threads: of a session.

    engines: by name, "all" for those that run here, "auto" for the fastest that agrees.
    """

    precisions: tuple[str, ...] | None = None
    engines: tuple[str, ...] = ("onnxruntime",)
    threads: int = 1
    long_side: int = 640

    def engine_names(self) -> tuple[str, ...]:
        """Without "all"."""
        if ALL_ENGINES not in self.engines:
            return self.engines
        local = [name for name in ENGINES if name not in REMOTE_ENGINES]
        return tuple(name for name in local if get_engine(name).available() is None)


def name_of(path: Path) -> str:
    """A bundle's name in labels: its folder's, without the ending."""
    return path.resolve().stem


def open_bundles(paths: Sequence[Path]) -> list[Bundle]:
    """Raises BundleError, and InputError where two have one name: their columns could not be told apart."""
    names = [name_of(path) for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two bundles are called {twice[0]}; rename one folder, or their columns cannot be told apart")
    return [Bundle.open(path) for path in paths]


def choose_all(bundles: Sequence[Bundle], choice: Choice) -> tuple[list[Subject], list[str]]:
    """The subjects of all bundles, the baseline first, and a line for each that is missing. Raises as `choose` does."""
    subjects: list[Subject] = []
    missing: list[str] = []
    for bundle in bundles:
        own, lines = choose(bundle, choice, name_of(bundle.path) if len(bundles) > 1 else "")
        subjects += own
        missing += [line for line in lines if line not in missing]
    return subjects, missing


def choose(bundle: Bundle, choice: Choice, name: str = "") -> tuple[list[Subject], list[str]]:
    """The subjects, the baseline (highest precision, first engine) first, and a line for each engine that is missing.

    name: put before each label. Raises BundleError for a precision the bundle lacks, EngineError where no engine is
    left.
    """
    there = {variant.precision for variant in bundle.variants("embedder")} or {bundle.select("embedder").precision}
    wanted = choice.precisions or tuple(precision for precision in PRECISIONS if precision in there)
    engines = choice.engine_names()
    found: list[tuple[str, str]] = []
    missing = []
    for engine in engines:
        if engine != AUTO and (reason := get_engine(engine).available()):
            missing.append(f"{engine}: not measured: {reason}")
            continue
        for precision in sorted(wanted, key=PRECISIONS.index):
            taken = engine
            try:
                if engine == AUTO:
                    decided = choose_engine(bundle, precision, SessionOptions(threads=choice.threads))
                    taken = decided.engine
                    missing.append(f"{precision.upper()}: {decided.words}")
                bundle.select("embedder", precision, taken)
            except BundleError as error:
                if len(engines) == 1 and choice.precisions:
                    raise
                missing.append(f"{precision.upper()} {engine}: not measured: {error}")
                continue
            found.append((precision, taken))
    found = list(dict.fromkeys(found))
    if not found:
        raise EngineError("; ".join(missing) or "no engine is chosen; give --engine onnxruntime")
    labels = [
        " ".join(filter(None, [name, precision.upper(), engine if len(engines) > 1 or AUTO in engines else ""]))
        for precision, engine in found
    ]
    subjects = [
        Subject(label, precision, engine, _options(precision, engine, choice), bundle, labels[0])
        for label, (precision, engine) in zip(labels, found, strict=True)
    ]
    return subjects, missing


def _options(precision: str, engine: str, choice: Choice) -> AnalyzerOptions:
    return AnalyzerOptions(
        precision,
        engine=engine,
        session=SessionOptions(threads=choice.threads),
        detector=DetectorOptions(long_side=choice.long_side),
    )


@contextmanager
def opened(subjects: Sequence[Subject]) -> Iterator[Mapping[str, FaceAnalyzer]]:
    """All subjects open side by side, by label."""
    with ExitStack() as stack:
        yield {subject.label: stack.enter_context(subject.open()) for subject in subjects}
