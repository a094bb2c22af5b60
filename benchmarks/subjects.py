"""What is compared: the variants of a bundle, each opened on an engine with its own detector and embedder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.detect import DetectorOptions
from edge.engines import SessionOptions, get_engine
from edge.errors import BundleError, EngineError
from edge.manifest import PRECISIONS


@dataclass(frozen=True, slots=True)
class Subject:
    """A variant under test. label: "INT8", or "INT8 openvino" where several engines are compared."""

    label: str
    precision: str
    engine: str
    options: AnalyzerOptions

    def open(self, bundle: Bundle) -> FaceAnalyzer:
        """Opens its models."""
        return FaceAnalyzer(bundle, self.options)

    def describe(self, analyzer: FaceAnalyzer) -> dict[str, Any]:
        """Files, sizes and digests of what was opened, for the report."""
        embedder, detector = analyzer.embedder_variant, analyzer.detector_variant
        return {
            "label": self.label,
            "precision": self.precision,
            "engine": self.engine,
            "embedder": {"name": embedder.name, "bytes": embedder.size, "sha256": embedder.sha256},
            "detector": {
                "name": detector.name,
                "precision": detector.precision,
                "bytes": detector.size,
                "sha256": detector.sha256,
            },
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
    """precisions: None for all of the bundle. engines: by name. threads: intra-op threads of a session."""

    precisions: tuple[str, ...] | None = None
    engines: tuple[str, ...] = ("onnxruntime",)
    threads: int = 1
    long_side: int = 640


def choose(bundle: Bundle, choice: Choice) -> tuple[list[Subject], list[str]]:
    """The subjects, the baseline (highest precision, first engine) first, and a line for each engine that is missing.

    Raises BundleError for a precision the bundle lacks, EngineError where no engine is left.
    """
    there = {variant.precision for variant in bundle.variants("embedder")} or {bundle.select("embedder").precision}
    wanted = choice.precisions or tuple(precision for precision in PRECISIONS if precision in there)
    subjects, missing = [], []
    for engine in choice.engines:
        if reason := get_engine(engine).available():
            missing.append(f"{engine}: not measured: {reason}")
            continue
        for precision in sorted(wanted, key=PRECISIONS.index):
            try:
                bundle.select("embedder", precision, engine)
            except BundleError as error:
                if len(choice.engines) == 1 and choice.precisions:
                    raise
                missing.append(f"{precision.upper()} {engine}: not measured: {error}")
                continue
            label = precision.upper() if len(choice.engines) == 1 else f"{precision.upper()} {engine}"
            options = AnalyzerOptions(
                precision,
                engine=engine,
                session=SessionOptions(threads=choice.threads),
                detector=DetectorOptions(long_side=choice.long_side),
            )
            subjects.append(Subject(label, precision, engine, options))
    if not subjects:
        raise EngineError("; ".join(missing))
    return subjects, missing


@contextmanager
def opened(bundle: Bundle, subjects: Sequence[Subject]) -> Iterator[Mapping[str, FaceAnalyzer]]:
    """All subjects open side by side, by label."""
    with ExitStack() as stack:
        yield {subject.label: stack.enter_context(subject.open(bundle)) for subject in subjects}
