"""The TensorRT engine from ONNX bytes to results: `python engine_checks.py BACKEND VERSION FOLDER [CHECK …]`.

On the emulated driver, with the stand-in for the tensorrt package; every assertion is on our own code's behaviour.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import fake_tensorrt  # noqa: E402
import models  # noqa: E402
from emulated_room import require_all_given_back  # noqa: E402
from measure_check import make_bundle  # noqa: E402

from benchmarks.gpu.engines import measure_batch, measure_best  # noqa: E402
from edge.bundle import Bundle  # noqa: E402
from edge.device_engines import build_engines  # noqa: E402
from edge.engines import SessionOptions, get_engine  # noqa: E402
from edge.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from edge.engines.tensorrt import Profile, TensorRtEngine, TensorRtOptions  # noqa: E402
from edge.engines.tensorrt.builder import build_plan  # noqa: E402
from edge.errors import BundleError, EngineError  # noqa: E402

driver = ctypes.CDLL("libcuda.so.1")


def engine(folder: Path, backend: str, **options: object) -> TensorRtEngine:
    return TensorRtEngine(TensorRtOptions(cache=folder, backend=backend, **{"quiet": True, **options}))  # type: ignore[arg-type]


def pictures(count: int, side: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    return {"pixels": rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)}


def expected(model: bytes, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with OnnxRuntimeEngine().open(model, SessionOptions()) as session:
        return session.run(batch)


def check_results(folder: Path, backend: str) -> None:
    """Any order of batch sizes gives what ONNX Runtime gives; a shape's third run is a graph; nothing is allocated."""
    model = models.small_model()
    before = driver.emulated_allocations()
    with engine(folder, backend, quiet=False).open(model, SessionOptions()) as session:
        assert session.inputs[0].shape == (None, 16, 16, 3)
        assert session.describe()["engine"] == "tensorrt"
        steady = driver.emulated_allocations()
        kept = []
        for count in (1, 1, 1, 5, 1, 5, 5, 64, 64, 64, 2, 1):
            batch = pictures(count)
            found = session.run(batch)
            kept.append((found["embedding"], expected(model, batch)["embedding"]))
            assert driver.emulated_allocations() == steady, "memory was allocated while running"
        for found_then, want in kept:  # results of earlier runs are not written over
            np.testing.assert_array_equal(found_then, want)
        assert driver.emulated_graph_launches() > 0
        with pytest.raises(
            EngineError, match=r"\(65, 16, 16, 3\); this engine was built for \(1, 16, 16, 3\) to \(64,"
        ):
            session.run(pictures(65))
        np.testing.assert_array_equal(session.run(batch)["embedding"], want)  # still works
    assert driver.emulated_allocations() == before, "memory was not given back"
    with pytest.raises(EngineError, match="closed"):
        session.run(batch)


def check_ranges(folder: Path, backend: str) -> None:
    """Each range of batches runs with its own profile; before TensorRT 10 the graphs of each stay with its context."""
    model = models.small_model()
    with engine(folder, backend, profile=Profile(batch=(2, 5, 9))).open(model, SessionOptions()) as session:
        assert session.range_of(session.inputs[0]) == ((1, 16, 16, 3), (9, 16, 16, 3))
        for count, profile in ((1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (9, 2), (4, 1), (1, 0)):
            prepared = session.prepare((pictures(count)["pixels"].shape,))
            assert prepared.profile == prepared.context.active_optimization_profile == profile
            np.testing.assert_array_equal(
                session.run(pictures(count))["embedding"], expected(model, pictures(count))["embedding"]
            )
        for _ in range(3):
            for count in (1, 5, 9):
                session.run(pictures(count))
        launches = driver.emulated_graph_launches()
        for count in (1, 5, 9):
            session.run(pictures(count))
        assert driver.emulated_graph_launches() == launches + 3, "a range lost its graph to another"
        with pytest.raises(EngineError, match=r"\(10, 16, 16, 3\); this engine was built for"):
            session.run(pictures(10))


def check_open_sides(folder: Path, backend: str) -> None:
    """A model of any size, as detectors are; many shapes, more than contexts are kept for."""
    model = models.small_model(side=None)
    profile = Profile(side=(32, 64, 96))
    with engine(folder, backend, profile=profile).open(model, SessionOptions()) as session:
        for _ in range(2):
            for count in (1, 2, 3, 8):
                for side in (32, 48, 64, 80, 96):
                    batch = pictures(count, side)
                    want = expected(model, batch)["map"]
                    np.testing.assert_allclose(session.run(batch)["map"], want, rtol=1e-5, atol=1e-6)
        with pytest.raises(EngineError, match="was built for"):
            session.run(pictures(1, 97))


def check_cache(folder: Path, backend: str) -> None:
    """The second opening builds nothing; another model or profile does; damage and foreign plans are refused."""
    model = models.small_model()
    first = engine(folder, backend).load(model)
    assert first.passport.facts["parity"]["mean"] > 0.9999
    assert first.passport.facts["parity"]["count"] == 8
    (plan,) = folder.glob("*.plan")
    (paper,) = folder.glob("fp32-sm_90-*.json")
    assert plan.stat().st_mode & 0o077 == 0
    assert first.passport.identity.device == "CPU emulator, 4 SMs, 1 GiB"
    assert [path.name.split("-12090")[0] for path in folder.glob("timings-*")] == [
        f"timings-{first.passport.identity.version}-sm_90-CPU-emulator-4-SMs-1-GiB"
    ]
    built = plan.stat().st_mtime_ns
    again = engine(folder, backend).load(model)
    assert again.passport == first.passport
    assert plan.stat().st_mtime_ns == built
    engine(folder, backend).load(models.small_model(seed=1))
    engine(folder, backend, profile=Profile(batch=(1, 8))).load(model)
    assert len(list(folder.glob("*.plan"))) == 3

    whole, text = plan.read_bytes(), paper.read_text(encoding="utf-8")
    plan.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(EngineError, match=r"not the plan its passport names.*delete"):
        engine(folder, backend).load(model)
    plan.write_bytes(whole)
    foreign = json.loads(text)
    foreign["identity"]["driver"] = "11040-470.57"
    paper.write_text(json.dumps(foreign), encoding="utf-8")
    with pytest.raises(EngineError, match="its key is not of its entries"):
        engine(folder, backend).load(model)
    paper.unlink()
    with pytest.raises(EngineError, match="no passport"):
        engine(folder, backend).load(model)
    paper.write_text(text, encoding="utf-8")
    engine(folder, backend).load(model)
    folder.chmod(0o777)
    with pytest.raises(EngineError, match="others can write there"):
        engine(folder, backend).load(model)
    folder.chmod(0o700)


def check_two_first_starts(folder: Path, backend: str) -> None:
    """Who wants an engine that somebody builds waits for it; one that is there needs no lock, nor a writable folder."""
    model, built, ready = models.small_model(), list[int](), list[object]()

    def build(*given: object, **named: object) -> object:
        built.append(1)
        time.sleep(0.5)
        return build_plan(*given, **named)  # type: ignore[arg-type]

    threads = [threading.Thread(target=lambda: ready.append(engine(folder, backend).load(model))) for _ in range(2)]
    with patch("edge.engines.tensorrt.engine.build_plan", build):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(built), len(ready)) == (1, 2)
    (lock,) = folder.glob("*.lock")
    lock.unlink()
    lock.mkdir()
    engine(folder, backend).load(model)


def check_what_tensorrt_says(folder: Path, backend: str) -> None:
    """Where TensorRT refuses, its own words are in the one line, whatever it refuses; it is told to one logger."""
    model = models.small_model()
    fake_tensorrt.starts = False
    with pytest.raises(EngineError, match=r"does not start: CUDA initialization failure with error: 35.* edge doctor$"):
        engine(folder, backend).load(model)
    fake_tensorrt.starts = True
    ready = engine(folder, backend).load(model)
    before = driver.emulated_allocations()
    fake_tensorrt.tells_shapes = False
    with pytest.raises(EngineError, match=r"does not say how large outputs are for inputs of .*\(-1, 8\)"):
        ready.open()
    fake_tensorrt.tells_shapes = True
    with ready.open() as session:
        session.run(pictures(1))
        fake_tensorrt.executes = False
        with pytest.raises(
            EngineError, match=r"could not start the engine: IExecutionContext::enqueueV3: .*\(no room\)"
        ):
            session.run(pictures(1))
        assert "(no room)" in session.describe()["without graph"]
        fake_tensorrt.executes = True
        np.testing.assert_array_equal(session.run(pictures(1))["embedding"], expected(model, pictures(1))["embedding"])
    assert driver.emulated_allocations() == before
    assert len(fake_tensorrt.loggers) == 1, "TensorRT may keep the first and tell it what concerns others"


def check_more_pictures_than_a_batch(folder: Path, backend: str) -> None:
    """Pictures are proved together as far as a batch goes: an engine for two faces is not refused for want of room."""
    model = models.small_model()
    ready = engine(folder, backend, profile=Profile(batch=(1, 2)), probes=pictures(5)).load(model)
    assert ready.passport.facts["parity"]["count"] == 5
    assert ready.passport.facts["parity"]["batches"] == [1, 2]
    single = engine(folder, backend, profile=Profile(batch=(1,))).load(model)
    assert single.passport.facts["parity"]["count"] == 8
    assert single.passport.facts["parity"]["batches"] == [1]
    assert len(list(folder.glob("*.plan"))) == 2


def check_every_range_is_proved(folder: Path, backend: str) -> None:
    """Each range has kernels of its own, and one that ran before may be wrong after another: none is kept then."""
    model = models.small_model()
    for wrong in range(3):
        fake_tensorrt.spoil_ranges = {wrong}
        with pytest.raises(EngineError, match=r"mean cosine of .* no engine was kept"):
            engine(folder, backend).load(model)
    fake_tensorrt.spoil_ranges = set()
    fake_tensorrt.spoil_way_back = True
    with pytest.raises(EngineError, match=r"mean cosine of .* no engine was kept"):
        engine(folder, backend).load(model)
    fake_tensorrt.spoil_way_back = False
    assert not list(folder.glob("*.plan"))
    parity = engine(folder, backend).load(model).passport.facts["parity"]
    assert (parity["count"], parity["batches"]) == (8, [1, 8, 64])


def check_batches_that_do_not_fit(folder: Path, backend: str) -> None:
    """Of batches an engine was not built for it is said that they do not fit, and none of them is the best."""
    model = models.small_model()
    ready = engine(folder, backend, profile=Profile(batch=(1, 2))).load(model)
    found = {"4": measure_batch(ready, 4, 1)}
    assert found == {"4": {"not_measured": "the engine was built for batches of 1 to 2"}}
    with pytest.raises(EngineError, match="no batch was measured"):
        measure_best(ready, model, found, None)


def check_proved_anew(folder: Path, backend: str) -> None:
    """An engine proved on made-up pictures is held against real ones once these are there, and goes where it fails."""
    model = models.small_model()
    first = engine(folder, backend).load(model)
    assert first.passport.facts["parity"]["on"] == "made-up pictures"
    real = engine(folder, backend, probes=pictures(5))
    judged = real.load(model).passport
    assert (judged.facts["parity"]["on"], judged.facts["parity"]["count"]) == ("real pictures", 5)
    assert judged.plan_sha256 == first.passport.plan_sha256, "it was built again"
    fake_tensorrt.spoil_plans = True  # only a run would notice
    assert real.load(model).passport == judged, "what was proved on real pictures is not proved again"
    assert engine(folder, backend).load(model).passport == judged
    other = models.small_model(seed=3)
    fake_tensorrt.spoil_plans = False
    engine(folder, backend).load(other)
    fake_tensorrt.spoil_plans = True
    with pytest.raises(EngineError, match=r"over 5 real pictures, .* no engine was kept"):
        real.load(other)
    fake_tensorrt.spoil_plans = False
    assert len(list(folder.glob("*.plan"))) == 1
    assert len(list(folder.glob("fp32-*.json"))) == 1


def check_kept_where_it_is_not_at_fault(folder: Path, backend: str) -> None:
    """A GPU whose memory others have taken says nothing of an engine that was built before: it stays, and is proved."""
    model = models.small_model()
    first = engine(folder, backend).load(model).passport
    real = engine(folder, backend, probes=pictures(5))
    driver.emulated_room(ctypes.c_long(0))
    try:
        with pytest.raises(EngineError, match="CUDA"):
            real.load(model)
    finally:
        driver.emulated_room(ctypes.c_long(-1))
    assert len(list(folder.glob("*.plan"))) == len(list(folder.glob("fp32-*.json"))) == 1
    judged = real.load(model).passport
    assert judged.facts["parity"]["on"] == "real pictures"
    assert judged.plan_sha256 == first.plan_sha256, "it was built again"


def check_failed_openings_give_everything_back(folder: Path, backend: str) -> None:
    """Wherever the device runs out: what was taken by then is free again, and with room enough the session opens."""
    ready = engine(folder, backend).load(models.small_model())
    require_all_given_back(ready.open, least=5)


def check_built_ahead(folder: Path, backend: str) -> None:
    """Every variant TensorRT takes, or those of one precision; a bundle without any says so."""
    folder.mkdir(parents=True)
    make_bundle(folder / "bundle")
    bundle = Bundle.open(folder / "bundle")
    options = TensorRtOptions(cache=folder / "cache", backend=backend, quiet=True)
    seen = {"embedder": pictures(4)["pixels"]}
    found = {variant.name: passport for variant, passport in build_engines(bundle, None, seen, options)}
    assert list(found) == ["embedder-fp32-onnx", "embedder-int8-tensorrt"]
    for passport in found.values():
        assert passport.facts["parity"]["on"] == "real pictures"
        assert passport.facts["parity"]["count"] == 4
    again = {variant.name: passport for variant, passport in build_engines(bundle, "int8", None, options)}
    assert again == {"embedder-int8-tensorrt": found["embedder-int8-tensorrt"]}
    with pytest.raises(BundleError, match="no fp16 model for tensorrt"):
        list(build_engines(bundle, "fp16", None, options))


def check_refinement(folder: Path, backend: str) -> None:
    """Layers without an INT8 kernel lose their Q/DQ, and only they; the passport says which."""
    model = models.quantised(models.small_model())
    fake_tensorrt.without_kernel = {"second_out", "first_out"}
    loaded = engine(folder, backend).load(model)
    assert loaded.passport.identity.precision == "int8"
    assert sorted(loaded.passport.facts["in_float"]) == ["first_out", "second_out"]
    batch = pictures(3)
    with loaded.open() as session:
        found, want = session.run(batch)["embedding"], expected(model, batch)["embedding"]
        assert not np.array_equal(found, want), "nothing was changed"
        np.testing.assert_allclose(found, want, atol=0.05)
    fake_tensorrt.without_kernel = set()
    whole = engine(folder / "other", backend).load(model)
    assert whole.passport.facts["in_float"] == []


def check_refusals(folder: Path, backend: str) -> None:
    """No engine that gives something else than its model, and no traceback for a damaged one."""
    fake_tensorrt.spoil_plans = True
    with pytest.raises(EngineError, match=r"mean cosine of .* no engine was kept"):
        engine(folder, backend).load(models.small_model())
    fake_tensorrt.spoil_plans = False
    assert not list(folder.glob("*.plan"))
    for damaged in (b"", b"rubbish", models.small_model()[:-700]):
        with pytest.raises(EngineError, match=r"^[^\n]+$"):
            engine(folder, backend).load(damaged)


def check_timings(folder: Path, backend: str) -> None:
    """What was timed while an engine was built is given to the next build, also where the engine failed its proof or
    TensorRT had no kernel; what is of another version is left aside.
    """
    known = f"timings of {sys.modules['tensorrt'].__version__}".encode()
    fake_tensorrt.timings.clear()
    fake_tensorrt.spoil_plans = True
    with pytest.raises(EngineError, match="no engine was kept"):
        engine(folder, backend).load(models.small_model())
    fake_tensorrt.spoil_plans = False
    assert not list(folder.glob("*.plan"))
    engine(folder, backend).load(models.small_model())
    engine(folder, backend).load(models.small_model(seed=1))
    assert fake_tensorrt.timings == [b"", known, known]
    (kept,) = folder.glob("timings-*")
    kept.unlink()
    model = models.quantised(models.small_model())
    fake_tensorrt.without_kernel = {"first_out", "second_out", "sum_out"}
    with pytest.raises(EngineError, match="use fp16"):
        engine(folder, backend).load(model)
    fake_tensorrt.without_kernel = set()
    engine(folder, backend).load(model)
    assert fake_tensorrt.timings[3:] == [b"", known, known, known]
    kept.write_bytes(b"timings of another version")
    engine(folder, backend).load(models.small_model(seed=2))
    assert fake_tensorrt.timings[-1] == b""


def check_threads(folder: Path, backend: str) -> None:
    """A session opened here runs in a worker, as the pipeline does it; another is opened and closed in that worker, as
    the live page does it where somebody is named."""
    model = models.small_model()
    before = driver.emulated_allocations()
    session = engine(folder, backend).open(model, SessionOptions())
    found: list[np.ndarray] = []
    batch = pictures(4)

    def work() -> None:
        found.extend(session.run(batch)["embedding"] for _ in range(4))
        with engine(folder, backend).open(model, SessionOptions()) as own:
            found.extend(own.run(batch)["embedding"] for _ in range(4))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    session.close()
    assert driver.emulated_allocations() == before, "memory was not given back"
    assert len(found) == 8
    for one in found:
        np.testing.assert_array_equal(one, expected(model, batch)["embedding"])


def check_streams(folder: Path, backend: str) -> None:
    """Several sessions of one engine at a time, each with its stream, in batches of every range. Before TensorRT 10
    contexts share no profile, so that each session but the first has an engine of its own; when all are closed, none.
    """
    model = models.small_model()
    before = driver.emulated_allocations()
    ready = engine(folder, backend).load(model)
    sharing = hasattr(sys.modules["tensorrt"], "ExecutionContextAllocationStrategy")
    for _ in range(2):
        with ready.open() as one, ready.open() as two, ready.open() as three:
            opened = (one, two, three)
            assert len({session.stream.handle for session in opened}) == 3
            assert len({id(session._plan) for session in opened}) == (1 if sharing else 3)
            for count in (1, 2, 9, 2, 2):
                batch = pictures(count)
                want = expected(model, batch)["embedding"]
                for session in opened:
                    np.testing.assert_array_equal(session.run(batch)["embedding"], want)
        # The engine that was loaded is free again, also where the last to close was another's.
        with ready.open() as alone:
            assert alone._plan is ready.loaded
    assert driver.emulated_allocations() == before, "memory was not given back"
    assert driver.emulated_allocations() == before, "memory was not given back"
    said = ready.layers()
    # A text a range, and no layer whose types the inspector keeps to itself in all of them.
    names = {layer["Name"] for text in said for layer in json.loads(text)["Layers"]}
    told = {
        layer["Name"]
        for text in said
        for layer in json.loads(text)["Layers"]
        if all("dynamic" not in tensor["Format/Datatype"] for tensor in layer["Inputs"])
    }
    assert len(said) == 3
    assert names == told
    # Before TensorRT 10 there would be no second context of a profile, if the inspector's were there still.
    with ready.open() as session:
        session.run(pictures(9))


def check_ctrl_c_ends_a_build(folder: Path, backend: str) -> None:
    """And not the build alone, as if there were no engine: TensorRT's bindings print what a callback raises."""
    if not hasattr(sys.modules["tensorrt"], "IProgressMonitor"):
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what it does not wait for
    fake_tensorrt.interrupt_builds = True
    with pytest.raises(KeyboardInterrupt):
        engine(folder, backend, quiet=False).load(models.small_model())
    fake_tensorrt.interrupt_builds = False
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert engine(folder, backend, quiet=False).load(models.small_model()).passport.facts["in_float"] == []


CHECKS: dict[str, Callable[[Path, str], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}

if __name__ == "__main__":
    _, backend, version, folder, *checks = sys.argv
    sys.modules["tensorrt"] = fake_tensorrt.make(version)
    assert get_engine("tensorrt").available() is None
    assert get_engine("tensorrt").version() == version
    for check in checks or CHECKS:
        CHECKS[check](Path(folder) / check, backend)
        print(check, "holds")
