"""Tries every engine of this machine on a bundle, drops those that compute something else, and takes the fastest.

Of the embedder and of the detector each: on a CPU, eight bits may make the one twice as fast and the other slower. The
landmarker goes with the detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone

from edge.auto.choice import Choice, Circumstances, Trial, recall, remember, this_machine
from edge.auto.trial import (
    LEAST_COSINE,
    MOST_ERROR,
    MOST_SHIFT,
    Entry,
    Opened,
    Outputs,
    Probes,
    cosine,
    head_error,
    race,
    shift,
)
from edge.bundle import Bundle
from edge.engine_cache import EngineCache
from edge.engines import ENGINES, REMOTE_ENGINES, SessionOptions, get_engine
from edge.errors import BundleError, EngineError

AUTO = "auto"

WORTH_MIXING = 0.05
"""Share of a frame's time that another engine or precision for the detector has to save: it takes memory as well."""

REFERENCE = "onnxruntime"
"""Computes the FP32 that all others are compared with: it is what export measured on."""


def choose_engine(
    bundle: Bundle,
    precision: str | None = None,
    options: SessionOptions | None = None,
    cache: EngineCache | None = None,
) -> Choice:
    """The fastest engine for a bundle at a precision that passes parity on this machine.

    The embedder's precision is never changed: thresholds and galleries belong to it. The detector may run on another
    engine, or in FP32 where that is the faster one, and never in less than was asked for. A choice made before for the
    same bundle, machine, engine versions and threads is taken again without measuring. Raises EngineError where no
    engine passes, BundleError where the bundle has no such variant.
    """
    options, cache = options or SessionOptions(), cache or EngineCache()
    versions = {name: _version(name) for name in _local()}
    circumstances = Circumstances(bundle.digest(), precision, options.threads, versions, this_machine())
    if (known := recall(cache, circumstances)) is not None:
        return known
    choice = _measured(bundle, precision, options)
    remember(cache, circumstances, choice)
    return choice


def _measured(bundle: Bundle, precision: str | None, options: SessionOptions) -> Choice:
    probes = Probes.make()
    wanted = _reference(bundle, precision, options, probes)
    trials, passed = list[Trial](), dict[Entry, Opened]()
    taken = bundle.select("embedder", precision).precision if precision is None else precision
    try:
        for name in _local():
            opened: Opened | None = None
            if missing := get_engine(name).available():
                trials.append(Trial(name, missing, there=False))
                continue
            try:
                opened = Opened(bundle, name, taken, options)
                opened.require_faithful(name)
                trial = _judged(name, opened, opened.outputs(probes), wanted)
            except (EngineError, BundleError) as error:
                trial = Trial(name, str(error))
            trials.append(trial)
            if opened is not None and trial.problem is None:
                passed[name, opened.precisions[1]] = opened
            elif opened is not None:
                opened.close()
        passed |= _float_detectors(bundle, passed, options, probes, wanted)
        if not passed:
            reasons = "; ".join(f"{trial.engine}: {trial.problem}" for trial in trials)
            raise EngineError(f"no engine of this machine computes what {bundle.path} says: {reasons}")
        times = race(passed, probes)
    finally:
        for kept in passed.values():
            kept.close()
    whole = {entry: sum(spent) for entry, spent in times.items() if passed[entry].embedder is not None}
    alone = min(whole, key=lambda entry: whole[entry])
    best = alone, min(times, key=lambda entry: times[entry][0])
    mixed = times[best[1]][0] + min(times[entry][1] for entry in whole)
    if mixed < (1 - WORTH_MIXING) * whole[alone]:
        best = min(whole, key=lambda entry: times[entry][1]), best[1]
    else:
        best, mixed = (alone, alone), whole[alone]
    by_engine = {engine: spent for (engine, _), spent in whole.items()}
    timed = tuple(replace(trial, milliseconds=by_engine.get(trial.engine)) for trial in trials)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Choice(best[0][0], taken, *best[1], mixed, timed, now)


def _float_detectors(
    bundle: Bundle, passed: Mapping[Entry, Opened], options: SessionOptions, probes: Probes, wanted: Outputs
) -> dict[Entry, Opened]:
    """The FP32 detector on each engine that passed with another one, where it passes too."""
    found = dict[Entry, Opened]()
    if not any(variant.precision == "fp32" for variant in bundle.variants("detector")):
        return found
    for engine, precision in passed:
        if precision == "fp32":
            continue
        try:
            opened = Opened(bundle, engine, "fp32", options, embedder=False)
        except (EngineError, BundleError):
            continue
        try:
            opened.require_faithful(engine)
            given = opened.outputs(probes)
            same = head_error(given, wanted) <= MOST_ERROR["fp32"] and shift(given, wanted) <= MOST_SHIFT["fp32"]
        except (EngineError, BundleError):
            same = False
        if same:
            found[engine, "fp32"] = opened
        else:
            opened.close()
    return found


def _reference(bundle: Bundle, precision: str | None, options: SessionOptions, probes: Probes) -> Outputs:
    """Of FP32, or of the variant itself where the bundle holds no FP32."""
    complete = all(any(v.precision == "fp32" for v in bundle.variants(role)) for role in ("embedder", "detector"))
    opened = Opened(bundle, REFERENCE, "fp32" if complete else precision, options)
    try:
        return opened.outputs(probes)
    finally:
        opened.close()


def _judged(name: str, opened: Opened, given: Outputs, wanted: Outputs) -> Trial:
    same, error = cosine(given, wanted), head_error(given, wanted)
    of_embedder, of_detector = opened.precisions
    problem = None
    if not same >= LEAST_COSINE[of_embedder]:
        problem = f"its embeddings have cosine {same:.5f} to FP32, {LEAST_COSINE[of_embedder]:g} is the least"
    elif not error <= MOST_ERROR[of_detector]:
        problem = f"its detector is off by {error:.2g} of FP32, {MOST_ERROR[of_detector]:g} is the most"
    elif not (moved := shift(given, wanted)) <= MOST_SHIFT[of_detector]:
        problem = f"its landmarks are off by {moved:.2g} of the eye distance, {MOST_SHIFT[of_detector]:g} is the most"
    return Trial(name, problem, round(same, 7), round(error, 7))


def _local() -> list[str]:
    return [name for name in ENGINES if name not in REMOTE_ENGINES]


def _version(name: str) -> str:
    engine = get_engine(name)
    return engine.available() or engine.version()
