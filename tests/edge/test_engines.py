from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.engines import ENGINES, SessionOptions, get_engine, open_session
from edge.errors import EngineError, InputError


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if missing := get_engine(name).available():
        pytest.skip(missing)
    return name


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 112, 112, 3)).astype(np.uint8)


def test_a_model_gives_what_it_computes_for_any_batch(engine: str, toy_models: dict[str, bytes]) -> None:
    with open_session(toy_models["embedder"], engine) as session:
        assert session.inputs[0].shape == (None, 112, 112, 3)
        assert session.inputs[0].dtype == "uint8"
        kept = []
        for count in (1, 3):
            batch = crops(count)
            found = session.run({"input": batch})["embedding"]
            blocks = batch.reshape(count, 4, 28, 4, 28, 3).astype(float).mean(axis=(2, 4)) - 127.5
            np.testing.assert_allclose(found, blocks.transpose(0, 3, 1, 2).reshape(count, -1), atol=1e-2)
            kept.append((found, found.copy()))
        for found, copy in kept:
            np.testing.assert_array_equal(found, copy)
        assert session.describe()["engine"] == engine


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "takes input"),
        ({"input": crops(1), "more": crops(1)}, "takes input"),
        ({"image": crops(1)}, "takes input"),
        ({"input": crops(1).astype(np.float32)}, "given float32"),
        ({"input": crops(1)[:, :100]}, "1×100×112×3"),
        ({"input": crops(1)[0]}, "112×112×3"),
    ],
)
def test_what_the_model_does_not_take_is_refused(
    engine: str, toy_models: dict[str, bytes], batch: dict[str, np.ndarray], message: str
) -> None:
    with open_session(toy_models["embedder"], engine) as session, pytest.raises(EngineError, match=message):
        session.run(batch)


def test_a_closed_session_runs_nothing_and_closes_twice(engine: str, toy_models: dict[str, bytes]) -> None:
    session = open_session(toy_models["embedder"], engine)
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"input": crops(1)})


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x08" * 50])
def test_bytes_that_are_no_model_are_refused_in_one_line(engine: str, data: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        open_session(data, engine)
    assert "\n" not in str(caught.value)


def test_an_engine_asked_for_cuda_never_runs_on_the_cpu(engine: str, toy_models: dict[str, bytes]) -> None:
    options = SessionOptions(device="cuda")
    if engine == "onnxruntime" and "CUDAExecutionProvider" in pytest.importorskip(engine).get_available_providers():
        with open_session(toy_models["embedder"], engine, options) as session:
            assert session.describe()["device"] == "cuda"
        return
    with pytest.raises(EngineError, match=r"(?i)cuda"):
        open_session(toy_models["embedder"], engine, options)


def test_an_unknown_engine_is_answered_with_those_there_are() -> None:
    with pytest.raises(EngineError, match=r"no engine is called 'warp'; there is .*onnxruntime"):
        open_session(b"", "warp")
    assert all(get_engine(name).name == name for name in ENGINES)


def test_a_model_file_that_is_not_there_is_the_users_mistake(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_session(tmp_path / "none.onnx")


_TWO_MODELS = """
import sys
from pathlib import Path
import numpy as np
from edge.engines import SessionOptions, open_session

def resident():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1])

options = SessionOptions(as_written=sys.argv[2] == "apart")
sessions = [open_session(Path(sys.argv[1]), options=options) for _ in range(2)]
picture = np.zeros((1, 1536, 1536, 3), np.uint8)
for session in sessions:
    session.run({session.inputs[0].name: picture[:, :64, :64]})
stands = [resident()]
for session in sessions:
    session.run({session.inputs[0].name: picture})
    stands.append(resident())
print(stands[1] - stands[0], stands[2] - stands[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what a process holds from /proc")
def test_models_on_onnx_runtime_share_their_working_memory(toy_models: dict[str, bytes], tmp_path: Path) -> None:
    model = tmp_path / "detector.onnx"
    model.write_bytes(toy_models["detector"])

    def growth(how: str) -> tuple[int, int]:
        command = [sys.executable, "-c", _TWO_MODELS, str(model), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = done.stdout.split()
        return int(first), int(second)

    first, second = growth("shared")
    assert second < first / 4
    first, second = growth("apart")
    assert second > first / 2


def test_the_bytes_of_an_opened_model_are_not_kept(toy_models: dict[str, bytes]) -> None:
    model = bytes(bytearray(toy_models["embedder"]))  # a copy that nobody else holds
    before = sys.getrefcount(model)
    with open_session(model, "onnxruntime") as session:
        assert sys.getrefcount(model) == before
        session.run({"input": crops(1)})


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_ctrl_c_while_a_package_is_imported_is_no_missing_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pybind11 has it: "initialization failed", by KeyboardInterrupt."""
    (tmp_path / f"{name}.py").write_text("raise ImportError('initialization failed') from KeyboardInterrupt()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(KeyboardInterrupt):
        get_engine(name).available()
    (tmp_path / f"{name}.py").write_text("raise ImportError('libm.so.9')  # another size, so that it is read anew\n")
    assert "not installed" in str(get_engine(name).available())
