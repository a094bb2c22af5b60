"""Tries every engine of this machine on a bundle, drops those that compute something else, and takes the fastest."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from edge.auto.choice import Choice, Circumstances, Trial, recall, remember, this_machine
from edge.auto.trial import LEAST_COSINE, MOST_ERROR, Opened, Outputs, Probes, cosine, head_error, race
from edge.bundle import Bundle
from edge.engine_cache import EngineCache
from edge.engines import ENGINES, REMOTE_ENGINES, SessionOptions, get_engine
from edge.errors import BundleError, EngineError

AUTO = "auto"

REFERENCE = "onnxruntime"
"""Computes the FP32 that all others are compared with: it is what export measured on."""


def choose_engine(
    bundle: Bundle,
    precision: str | None = None,
    options: SessionOptions | None = None,
    cache: EngineCache | None = None,
) -> Choice:
    """The fastest engine for a bundle at a precision that passes parity on this machine.

    The precision is never changed: thresholds and galleries belong to it. A choice made before for the same bundle,
    machine, engine versions and threads is taken again without measuring. Raises EngineError where no engine passes,
    BundleError where the bundle has no such variant.
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
    trials, passed = list[Trial](), dict[str, Opened]()
    taken = bundle.select("embedder", precision).precision if precision is None else precision
    try:
        for name in _local():
            opened: Opened | None = None
            if missing := get_engine(name).available():
                trials.append(Trial(name, missing, there=False))
                continue
            try:
                opened = Opened(bundle, name, taken, options)
                trial = _judged(name, opened, opened.outputs(probes), wanted)
            except (EngineError, BundleError) as error:
                trial = Trial(name, str(error))
            trials.append(trial)
            if opened is not None and trial.problem is None:
                passed[name] = opened
            elif opened is not None:
                opened.close()
        if not passed:
            reasons = "; ".join(f"{trial.engine}: {trial.problem}" for trial in trials)
            raise EngineError(f"no engine of this machine computes what {bundle.path} says: {reasons}")
        times = race(passed, probes)
    finally:
        for kept in passed.values():
            kept.close()
    timed = tuple(replace(trial, milliseconds=times.get(trial.engine)) for trial in trials)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Choice(min(times, key=lambda name: times[name]), taken, timed, now)


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
    return Trial(name, problem, round(same, 7), round(error, 7))


def _local() -> list[str]:
    return [name for name in ENGINES if name not in REMOTE_ENGINES]


def _version(name: str) -> str:
    engine = get_engine(name)
    return engine.available() or engine.version()
