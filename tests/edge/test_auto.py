"""`auto`: the fastest engine that computes the same, decided by running it, and remembered."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from clock import Clock

from edge.auto import Choice, choose_engine
from edge.auto import choose as choosing
from edge.auto.trial import Opened
from edge.bundle import Bundle
from edge.cli import options
from edge.engine_cache import EngineCache
from edge.engines import Array, Engine, Session, SessionOptions, get_engine, open_session
from edge.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeSession
from edge.engines.openvino import OpenVinoBf16Engine
from edge.errors import EngineError
from edge.probes import synthetic_crops, synthetic_scenes
from edge.selftest import ENTRY, answers, probes, to_entry

CLOCK = Clock()
"""By which engines are timed: whatever ONNX Runtime is asked takes a millisecond, and 50 more where it is held up."""


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


class Slow(OnnxRuntimeEngine):
    """ONNX Runtime, held up."""

    name = "slow"

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        return _Held(model, options)


class _Held(OnnxRuntimeSession):
    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        CLOCK.sleep(0.05)
        return super()._run_impl(batch)


class Crooked(OnnxRuntimeEngine):
    """ONNX Runtime whose results are shifted by one place: fast, and wrong."""

    name = "crooked"

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        return _Shifted(model, options)


class _Shifted(OnnxRuntimeSession):
    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.roll(value, 1, axis=-1) for name, value in super()._run_impl(batch).items()}


class SlowEmbedder(OnnxRuntimeEngine):
    """ONNX Runtime, held up where it embeds: crops have a fixed size, and whole pictures any."""

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        session = OnnxRuntimeSession(model, options)
        return _Held(model, options) if session.inputs[0].shape[1] else session


class SlowDetector(OnnxRuntimeEngine):
    """ONNX Runtime, held up where it detects."""

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        session = OnnxRuntimeSession(model, options)
        return session if session.inputs[0].shape[1] else _Held(model, options)


class Absent(OnnxRuntimeEngine):
    name = "absent"

    def available(self) -> str | None:
        return "absent is not installed; install it with: pip install 'arcedge[absent]'"


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Engine]]:
    """The engines there are; a test adds to them."""
    there: dict[str, type[Engine]] = {"onnxruntime": OnnxRuntimeEngine}

    def find(name: str) -> Engine:
        return there[name]()

    def opened(model: bytes, engine: str = "onnxruntime", options: SessionOptions | None = None) -> Session:
        return there[engine]().open(model, options or SessionOptions())

    real = OnnxRuntimeSession._run_impl

    def timed(session: OnnxRuntimeSession, batch: Mapping[str, Array]) -> dict[str, Array]:
        CLOCK.sleep(0.001)
        return real(session, batch)

    monkeypatch.setattr(OnnxRuntimeSession, "_run_impl", timed)
    monkeypatch.setattr("edge.auto.trial.time", CLOCK)
    monkeypatch.setattr(choosing, "ENGINES", there)
    monkeypatch.setattr(choosing, "get_engine", find)
    monkeypatch.setattr("edge.auto.trial.open_session", opened)
    return there


def test_the_fastest_engine_that_agrees_is_taken_and_said(
    own_bundle: Path, cache: EngineCache, engines: dict[str, type[Engine]]
) -> None:
    engines.update(slow=Slow, crooked=Crooked, absent=Absent)
    choice = choose_engine(Bundle.open(own_bundle), cache=cache)
    assert choice.engine == "onnxruntime"
    trials = {trial.engine: trial for trial in choice.trials}
    assert trials["slow"].problem is None
    assert trials["slow"].milliseconds is not None
    assert trials["slow"].milliseconds == pytest.approx(2 * 51), "both models were run"
    assert trials["crooked"].problem is not None
    assert "cosine" in trials["crooked"].problem
    assert trials["crooked"].milliseconds is None
    assert "crooked: its embeddings have cosine" in choice.words
    assert "not here: absent" in choice.words
    assert "slow" in choice.words


def test_each_model_runs_where_it_is_fastest_and_that_is_said_and_remembered(
    own_bundle: Path, cache: EngineCache, engines: dict[str, type[Engine]]
) -> None:
    engines.update(onnxruntime=SlowDetector, other=SlowEmbedder)
    for _ in range(2):
        choice = choose_engine(Bundle.open(own_bundle), cache=cache)
        assert (choice.engine, choice.detector_engine) == ("onnxruntime", "other")
        assert choice.milliseconds == pytest.approx(2)
        assert [trial.milliseconds for trial in choice.trials] == [pytest.approx(52)] * 2
        assert "engine auto: onnxruntime (fp32), detector on other (fp32)" in choice.words
    assert choice.remembered


def test_one_engine_serves_both_where_a_second_saves_next_to_nothing(
    own_bundle: Path, cache: EngineCache, engines: dict[str, type[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.update(other=OnnxRuntimeEngine)
    times = {("onnxruntime", "fp32"): (10.0, 4.0), ("other", "fp32"): (9.5, 5.0)}
    monkeypatch.setattr(choosing, "race", lambda *_: times)
    choice = choose_engine(Bundle.open(own_bundle), cache=cache)
    assert (choice.engine, choice.detector_engine, choice.milliseconds) == ("onnxruntime", "onnxruntime", 14.0)


@pytest.mark.parametrize(("asked", "detector"), [("int8", "fp32"), ("fp32", "fp32")])
def test_the_detector_runs_in_fp32_where_that_is_faster_and_never_in_less_than_was_asked(
    own_bundle: Path,
    cache: EngineCache,
    engines: dict[str, type[Engine]],
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    detector: str,
) -> None:
    manifest = json.loads((own_bundle / "bundle.json").read_text())
    manifest["variants"] += [
        {**variant, "name": f"{variant['role']}-int8", "precision": "int8"} for variant in manifest["variants"]
    ]
    (own_bundle / "bundle.json").write_text(json.dumps(manifest))
    raced: dict[tuple[str, str], tuple[float, float]] = {}

    def race(opened: Mapping[tuple[str, str], Opened], probes: object) -> dict[tuple[str, str], tuple[float, float]]:
        spent = {"int8": 12.0 if asked == "int8" else 1.0, "fp32": 8.0}
        raced.update({entry: (spent[entry[1]], 2.0 if one.embedder else 0.0) for entry, one in opened.items()})
        return raced

    monkeypatch.setattr(choosing, "race", race)
    choice = choose_engine(Bundle.open(own_bundle), asked, cache=cache)
    assert (choice.precision, choice.detector_precision, choice.milliseconds) == (asked, detector, 10.0)
    assert {precision for _, precision in raced} == {asked, "fp32"}


def test_a_choice_is_remembered_until_something_it_depends_on_changes(
    own_bundle: Path, cache: EngineCache, engines: dict[str, type[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(own_bundle)
    first = choose_engine(bundle, cache=cache)
    again = choose_engine(bundle, cache=cache)
    assert not first.remembered
    assert again.remembered
    assert again.trials == first.trials
    assert f"measured {first.measured}" in again.words
    assert not choose_engine(bundle, options=SessionOptions(threads=2), cache=cache).remembered
    values = json.loads((own_bundle / "bundle.json").read_text())
    values["provenance"] = {"note": "another export"}
    (own_bundle / "bundle.json").write_text(json.dumps(values))
    assert not choose_engine(Bundle.open(own_bundle), cache=cache).remembered
    monkeypatch.setattr(OnnxRuntimeEngine, "version", lambda self: "99.0")
    assert not choose_engine(bundle, cache=cache).remembered


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "arcedge-engine-choice", "version": 1}'])
def test_a_damaged_memory_is_measured_again(
    own_bundle: Path, cache: EngineCache, engines: dict[str, type[Engine]], content: str
) -> None:
    choose_engine(Bundle.open(own_bundle), cache=cache)
    (kept,) = cache.folder.iterdir()
    kept.write_text(content)
    assert not choose_engine(Bundle.open(own_bundle), cache=cache).remembered
    assert choose_engine(Bundle.open(own_bundle), cache=cache).remembered


def test_where_no_engine_agrees_there_is_an_error_and_no_fall_back(
    own_bundle: Path, cache: EngineCache, engines: dict[str, type[Engine]]
) -> None:
    bundle = Bundle.open(own_bundle)
    real = choosing._reference(bundle, None, SessionOptions(), choosing.Probes.make())
    engines["onnxruntime"] = Crooked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "_reference", lambda *_: real)
        with pytest.raises(EngineError, match=r"no engine of this machine.*onnxruntime: its embeddings have cosine"):
            choose_engine(bundle, cache=cache)
    assert not list(cache.folder.iterdir()), "a failure is not remembered"


def test_an_engine_that_would_be_refused_for_work_is_not_chosen(own_bundle: Path, cache: EngineCache) -> None:
    bundle = Bundle.open(own_bundle)
    variant = bundle.select("embedder", None, "onnxruntime")
    with open_session(bundle.load(variant)) as session:
        given = answers(session, probes(variant.contract))
    manifest = json.loads((own_bundle / "bundle.json").read_text())
    entry = next(entry for entry in manifest["variants"] if entry["name"] == variant.name)
    entry.setdefault("measured", {})[ENTRY] = to_entry(given[:, ::-1], 0.999)
    (own_bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"onnxruntime: .*computes something else than the export"):
        choose_engine(Bundle.open(own_bundle), cache=cache)


def test_every_engine_of_this_machine_is_tried_for_real(own_bundle: Path, cache: EngineCache) -> None:
    choice = choose_engine(Bundle.open(own_bundle), cache=cache)
    tried = {trial.engine for trial in choice.trials if trial.milliseconds is not None}
    assert choice.engine in tried
    assert "onnxruntime" in tried
    assert {trial.engine for trial in choice.trials if not trial.there} == {
        name for name in choosing.ENGINES if get_engine(name).available()
    }


def test_bf16_is_there_exactly_where_the_processor_has_it() -> None:
    engine = OpenVinoBf16Engine()
    if get_engine("openvino").available():
        assert engine.available()
        return
    info = Path("/proc/cpuinfo").read_text()
    has = "avx512_bf16" in info or "amx_bf16" in info
    assert (engine.available() is None) == has


def test_probes_are_the_same_everywhere_and_look_like_pictures() -> None:
    first, again = synthetic_crops(3), synthetic_crops(3)
    np.testing.assert_array_equal(first, again)
    scenes = synthetic_scenes(2)
    assert scenes.shape == (2, 480, 640, 3)
    assert scenes.dtype == np.uint8
    assert all(20 < scene.std() < 110 for scene in scenes)


def test_a_verb_settles_auto_before_anything_opens_and_says_what_it_took(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCEDGE_CACHE", str(tmp_path / "cache"))
    parser = argparse.ArgumentParser()
    options.add_bundle(parser)
    for said in ("measured now", "measured 20"):
        args = parser.parse_args(["--bundle", str(own_bundle), "--engine", "auto"])
        with options.open_analyzer(args) as analyzer:
            assert analyzer.describe()["engine"] == args.engine != "auto"
        assert f"engine auto: {args.engine}" in (printed := capsys.readouterr().err)
        assert said in printed


def with_int8(bundle: Path) -> Path:
    """The bundle, each of its models also there by the name of INT8."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["variants"] += [
        {**variant, "name": f"{variant['role']}-int8", "precision": "int8"} for variant in manifest["variants"]
    ]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


def test_every_worker_gets_what_auto_chose_for_the_first(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = Choice("onnxruntime", "fp32", "onnxruntime", "int8", 10.0, (), "2026-01-01T00:00:00Z")
    monkeypatch.setattr("edge.auto.choose_engine", lambda *_: choice)
    parser = argparse.ArgumentParser()
    options.add_bundle(parser)
    args = parser.parse_args(["--bundle", str(with_int8(own_bundle)), "--engine", "auto"])
    with options.open_analyzer(args) as first, options.open_analyzer(args) as second:
        chosen = [(one.embedder_variant.precision, one.detector_variant.precision) for one in (first, second)]
    assert chosen == [("fp32", "int8")] * 2
    assert args.detector_precision == "int8"


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_the_detector_runs_in_the_precision_the_user_named(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    choice = Choice("onnxruntime", "int8", "openvino", "int8", 10.0, (), "2026-01-01T00:00:00Z")
    monkeypatch.setattr("edge.auto.choose_engine", lambda *_: choice)
    parser = argparse.ArgumentParser()
    options.add_bundle(parser)
    words = ["--precision", "int8", "--detector-precision", "fp32", "--engine", engine]
    args = parser.parse_args(["--bundle", str(with_int8(own_bundle)), *words])
    with options.open_analyzer(args) as analyzer:
        said = analyzer.describe()
    assert (said["embedder"], said["detector"], args.detector_engine) == ("embedder-int8", "detector-fp32", None)
