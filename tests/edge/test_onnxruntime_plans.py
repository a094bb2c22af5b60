"""What ONNX Runtime's TensorRT provider keeps: loaded only with its passport, on a stand-in for the provider."""

from __future__ import annotations

import ctypes
import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.cuda.driver import DeviceInfo
from edge.engine_cache import EngineCache, EngineIdentity, Passport, load_plan
from edge.engines import SessionOptions, onnxruntime_gpu
from edge.engines.base import Session
from edge.engines.onnxruntime_gpu import (
    PROVIDER_LIBRARY,
    CudaProviderEngine,
    TensorRtProviderEngine,
    tensorrt_version,
)
from edge.engines.onnxruntime_plans import kept_plans
from edge.errors import EngineError
from tests.support.tensorrt_provider import Provider

ORIN = DeviceInfo(0, "Orin", (8, 7), 15 << 30, 12060, "540.4.0", 16)
BATCH = np.random.default_rng(3).integers(0, 256, (3, 112, 112, 3)).astype(np.uint8)


class Machine:
    """Opens the toy embedder as `onnxruntime-tensorrt`; `info` and `tensorrt` are what it is said to run on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path, model: bytes) -> None:
        self.info, self.tensorrt, self.model = ORIN, "10.3.0", model
        self.provider, self.cache = Provider(monkeypatch), cache
        monkeypatch.setenv("ARCEDGE_CACHE", str(cache))
        monkeypatch.setattr(onnxruntime_gpu, "device_info", lambda: self.info)
        monkeypatch.setattr(onnxruntime_gpu, "tensorrt_version", lambda folder: self.tensorrt)

    def open(self, options: SessionOptions | None = None, model: bytes | None = None) -> Session:
        return TensorRtProviderEngine().open(model or self.model, options or SessionOptions())

    @property
    def kept(self) -> list[tuple[Path, Path]]:
        """Plans and their passports."""
        return [(plan, plan.with_suffix(".json")) for plan in sorted(self.cache.glob("*.plan"))]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_models: dict[str, bytes]) -> Machine:
    return Machine(monkeypatch, tmp_path / "cache", toy_models["embedder"])


def test_what_was_built_is_kept_with_a_passport_and_loaded_by_the_next_start(machine: Machine) -> None:
    with machine.open() as first, machine.open() as second:
        np.testing.assert_array_equal(
            first.run({"input": BATCH})["embedding"], second.run({"input": BATCH})["embedding"]
        )
        assert second.describe()["placed"].startswith("TensorRT ")
    assert (machine.provider.built, machine.provider.loaded) == (1, [b"engine 1"])
    assert machine.provider.found[0] == {}
    ((plan, paper),) = machine.kept
    passport = Passport.from_dict(json.loads(paper.read_text()))
    assert passport.identity.engine == "onnxruntime-tensorrt"
    assert passport.identity.version.endswith(" with TensorRT 10.3.0")
    assert (passport.identity.capability, passport.identity.driver) == ("sm_87", "12060-540.4.0")
    assert passport.plan_sha256 == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert passport.facts["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in machine.provider.found[1].items()
    }
    assert sorted(Path(name).suffix for name in passport.facts["files"]) == [".engine", ".profile"]


def test_nobody_else_can_write_what_is_loaded_and_nothing_of_it_stays_beside(machine: Machine) -> None:
    modes = list[int]()
    watched = machine.provider.opened

    def opened(options: dict[str, str]) -> None:
        folder = Path(options["trt_engine_cache_path"])
        modes.extend(path.stat().st_mode & 0o777 for path in (folder, folder.parent, machine.cache))
        watched(options)

    machine.provider.opened = opened  # type: ignore[method-assign]
    machine.open().close()
    ((plan, paper),) = machine.kept
    before = plan.stat(), paper.stat()
    machine.open().close()
    assert [file.st_ino for file in before] == [plan.stat().st_ino, paper.stat().st_ino], "it is written once"
    assert modes == [0o700] * 6
    assert {path.stat().st_mode & 0o777 for path in (plan, paper)} == {0o600}
    assert set(machine.cache.iterdir()) == {plan, paper, plan.with_suffix(".lock")}
    # A provider may come back to its folder as long as its session is open: no later session gets it.
    assert len(set(machine.provider.folders)) == 2


def _flip(plan: Path, paper: Path) -> None:
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)


def _other_driver(plan: Path, paper: Path) -> None:
    """Both files of an engine in order, but of another driver, under this one's names."""
    values = json.loads(paper.read_text())
    passport = Passport.from_dict(values)
    other = replace(passport, identity=replace(passport.identity, driver="12060-535.1"))
    paper.write_text(json.dumps(other.to_dict()))


def _no_archive(plan: Path, paper: Path) -> None:
    """A plan of the engine `tensorrt`, whose passport somebody wrote anew."""
    plan.write_bytes(b"ftrt")
    passport = Passport.from_dict(json.loads(paper.read_text()))
    digest = hashlib.sha256(b"ftrt").hexdigest()
    paper.write_text(json.dumps(replace(passport, plan_sha256=digest, plan_size=4).to_dict()))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_flip, "is not the plan its passport names, it was changed or damaged"),
        (lambda plan, paper: plan.write_bytes(plan.read_bytes()[:-1]), "is not the plan its passport names"),
        (lambda plan, paper: paper.unlink(), "has no passport"),
        (lambda plan, paper: paper.write_text("{}"), "is no passport"),
        (_other_driver, "was built for something else: driver is 12060-535.1, 12060-540.4.0 is needed"),
        (_no_archive, "not a zip file"),
    ],
)
def test_what_does_not_fit_its_passport_is_built_again_and_never_loaded(
    machine: Machine, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path, Path], object], said: str
) -> None:
    machine.open().close()
    spoil(*machine.kept[0])
    machine.provider.refuses = "CUDA out of memory"
    with pytest.raises(EngineError):
        machine.open()
    assert not list(machine.cache.glob("*.json")) + machine.kept
    machine.provider.refuses = None
    machine.open().close()
    assert (machine.provider.built, machine.provider.loaded) == (3, [])
    assert machine.provider.found == [{}, {}, {}]
    (line,) = (record.getMessage() for record in caplog.records)
    assert said in line
    assert line.endswith("it is thrown away and built again")
    assert "\n" not in line
    machine.open().close()
    assert machine.provider.loaded == [b"engine 3"]


def test_a_passport_without_its_plan_is_nothing(machine: Machine) -> None:
    machine.open().close()
    machine.kept[0][0].unlink()
    machine.open().close()
    assert (machine.provider.built, machine.provider.loaded) == (2, [])


def test_files_that_others_left_where_the_provider_looks_are_gone_before_it_does(machine: Machine) -> None:
    machine.open().close()
    (plan, paper), work = machine.kept[0], machine.provider.folders[0].parent
    machine.provider.folders[0].mkdir(parents=True)
    for folder in (machine.provider.folders[0], work):
        (folder / "x_sm87.engine").write_bytes(b"foreign")
    for file in (plan, paper):
        file.unlink()
    machine.open().close()
    assert machine.provider.found == [{}, {}]
    assert not work.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"tensorrt": "10.3.1"},
        {"info": replace(ORIN, capability=(8, 9))},
        {"info": replace(ORIN, release="540.5.0")},
        {"info": replace(ORIN, driver=12080)},
        {"info": replace(ORIN, processors=8)},
    ],
)
def test_another_tensorrt_driver_or_gpu_is_never_given_what_was_built_for_this_one(
    machine: Machine, change: dict[str, object]
) -> None:
    machine.open().close()
    for name, value in change.items():
        setattr(machine, name, value)
    machine.open().close()
    assert (machine.provider.built, machine.provider.loaded) == (2, [])
    assert len(machine.kept) == 2


def test_another_onnxruntime_model_or_way_to_open_it_has_an_engine_of_its_own(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, toy_models: dict[str, bytes]
) -> None:
    machine.open().close()
    machine.open(SessionOptions(as_written=True)).close()
    machine.open(model=toy_models["detector"]).close()
    monkeypatch.setattr("onnxruntime.__version__", "1.99.0")
    machine.open().close()
    assert (machine.provider.built, machine.provider.loaded) == (4, [])
    assert len(machine.kept) == 4


def test_of_an_opening_that_fails_nothing_is_kept(machine: Machine) -> None:
    machine.provider.refuses = "CUDA out of memory"
    with pytest.raises(EngineError, match=r"CUDA out of memory$"):
        machine.open()
    assert not machine.kept
    assert not list(machine.cache.glob("*.work"))
    machine.provider.refuses = None
    machine.open().close()
    assert machine.provider.built == 2


def test_a_kept_engine_that_the_provider_refuses_is_named_and_stays(machine: Machine) -> None:
    """Memory that others have taken says nothing of the engine, so that it is not thrown away for it."""
    machine.open().close()
    machine.provider.refuses = "TensorRT EP could not deserialize engine from cache"
    with pytest.raises(EngineError, match=r"could not deserialize .*\.plan: delete that if this goes on") as caught:
        machine.open()
    assert "\n" not in str(caught.value)
    assert len(machine.kept) == 1


def test_a_provider_that_keeps_nothing_is_said_to(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.provider.writes = False
    machine.open().close()
    assert [record.getMessage() for record in caplog.records] == [
        "ONNX Runtime wrote no engine to keep: each start builds it again"
    ]
    assert not machine.kept


def test_a_cache_that_cannot_be_written_ends_in_one_line(machine: Machine) -> None:
    machine.open().close()
    plan, _ = machine.kept[0]
    lock = plan.with_suffix(".lock")
    lock.unlink()
    lock.mkdir()
    with pytest.raises(EngineError, match=r"cannot be written .*; set ARCEDGE_CACHE"):
        machine.open()


def test_the_provider_is_asked_for_nothing_that_brings_in_engines_of_others(machine: Machine) -> None:
    machine.open().close()
    assert set(machine.provider.options[0]) == {
        "device_id",
        "trt_max_workspace_size",
        "trt_fp16_enable",
        "trt_int8_enable",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
    }


def test_a_plan_in_the_dress_of_an_onnx_file_is_refused_before_the_provider_sees_it(machine: Machine) -> None:
    """The provider deserialises what an EPContext node holds, or names, with nothing asked."""
    node = helper.make_node("EPContext", ["input"], ["output"], domain="com.microsoft", ep_cache_context=b"a plan")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("input", "output")]
    graph = helper.make_graph([node], "context", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    with pytest.raises(EngineError, match=r"ONNX Runtime refuses the model.*EPContext"):
        machine.open(model=model.SerializeToString())
    assert machine.provider.folders == []


IDENTITY = EngineIdentity("a" * 64, "onnxruntime-tensorrt", "1", "Orin, 16 SMs, 15 GiB", "sm_87", "1", "fp16", "batch")


def test_who_opens_the_same_model_meanwhile_waits_and_loads_what_was_built(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, found = EngineCache(tmp_path / "cache"), list[bytes]()

    def second() -> None:
        with kept_plans(cache, IDENTITY) as folder:
            found.extend(file.read_bytes() for file in folder.iterdir())

    thread = threading.Thread(target=second)
    with kept_plans(cache, IDENTITY) as folder:
        thread.start()
        while not caplog.records:
            thread.join(0.01)
        (folder / "x.engine").write_bytes(b"built")
    thread.join()
    assert found == [b"built"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert "somebody else opens this model; waiting for the engine" in line


KILLED = """
import os, sys
from pathlib import Path
from edge.engine_cache import EngineCache
from edge.engines.onnxruntime_plans import kept_plans
from tests.edge.test_onnxruntime_plans import IDENTITY
with kept_plans(EngineCache(Path(sys.argv[1])), IDENTITY) as folder:
    (folder / "x.engine").write_bytes(b"half a")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_build_left_is_neither_loaded_nor_left_to_lie(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "cache"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [file.read_bytes() for file in folder.rglob("*.engine")] == [b"half a"]
    with kept_plans(EngineCache(folder), IDENTITY) as work:
        assert list(work.iterdir()) == []
        assert list(work.parent.iterdir()) == [work]
        (work / "x.engine").write_bytes(b"whole")
    cache = EngineCache(folder)
    assert load_plan(*cache.paths(IDENTITY), IDENTITY)[1].facts["seconds"] >= 0
    assert not list(folder.rglob("*.engine"))


@pytest.mark.parametrize(
    ("needed", "number", "version"),
    [("libnvinfer.so.8", 8503, "8.5.3"), ("libnvinfer.so.8", 8601, "8.6.1"), ("libnvinfer.so.10", 100300, "10.3.0")],
)
def test_the_version_is_that_of_the_library_the_provider_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, needed: str, number: int, version: str
) -> None:
    (tmp_path / PROVIDER_LIBRARY).write_bytes(b"\0libnvinfer_plugin.so.7\0" + needed.encode() + b"\0libm.so.6\0")
    libraries = {needed: SimpleNamespace(getInferLibVersion=lambda: number)}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libraries[name])
    assert tensorrt_version(tmp_path) == version


def test_the_engine_is_not_there_without_its_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaProviderEngine, "available", lambda self: None)
    if (missing := TensorRtProviderEngine().available()) is None:
        pytest.skip("this machine has it")
    assert "arcedge[gpu]" in missing or "LD_LIBRARY_PATH" in missing


def test_a_tensorrt_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"libonnxruntime_providers_tensorrt\.so: cannot be read"):
        tensorrt_version(tmp_path)
    (tmp_path / PROVIDER_LIBRARY).write_bytes(b"\0libm.so.6\0")
    with pytest.raises(EngineError, match="does not say which TensorRT it needs"):
        tensorrt_version(tmp_path)
    (tmp_path / PROVIDER_LIBRARY).write_bytes(b"\0libnvinfer.so.99\0")
    with pytest.raises(EngineError, match=r"needs TensorRT's libnvinfer\.so\.99, which cannot be loaded") as caught:
        tensorrt_version(tmp_path)
    assert "\n" not in str(caught.value)
