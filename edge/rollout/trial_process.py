"""The process of `edge.rollout.trial`: opens a bundle's models, runs their self-test, and says why not in one line."""

from __future__ import annotations

import sys
from pathlib import Path

from edge.bundle import Bundle
from edge.engines import SessionOptions, open_session
from edge.errors import EdgeError
from edge.selftest import run_self_test


def problem_of(path: Path, engine: str, precision: str | None) -> str | None:
    """Why the bundle must not be used on this device, in one line; None where it passes."""
    try:
        bundle = Bundle.open(path)
        on, detects_in = engine, None
        if engine == "auto":
            from edge.auto import choose_engine

            choice = choose_engine(bundle, precision)
            engine, on, detects_in = choice.engine, choice.detector_engine, choice.detector_precision
        embedder = bundle.select("embedder", precision, engine)
        there = {variant.precision for variant in bundle.variants("detector")}
        same = embedder.precision if embedder.precision in there else None
        detector = bundle.select("detector", detects_in or same, on)
        landmarker = bundle.landmarker(detector.precision, on)
        for variant, name in ((detector, on), (landmarker, on), (embedder, engine)):
            if variant is None:
                continue
            options = SessionOptions(contract=variant.contract.digest())
            with open_session(bundle.load(variant), name, options) as session:
                result = run_self_test(session, variant)
            if result is None:
                return f"{variant.name} stores no self-test; export it again"
            if not result.passed:
                return f"{variant.name} on {name} {result}"
    except EdgeError as error:
        return str(error)
    return None


if __name__ == "__main__":
    _, _bundle, _engine, _precision = sys.argv
    if found := problem_of(Path(_bundle), _engine, _precision or None):
        sys.exit(found.replace("\n", " "))
