"""The reader of ncnn's files against ncnn itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
ncnn = pytest.importorskip("ncnn")

from benchmarks.int8.ncnn_model import CONTRACT, main, read_ncnn  # noqa: E402
from edge.engines import open_session  # noqa: E402
from edge.errors import InputError  # noqa: E402

PARAM = """7767517
9 10
Input            data  0 1 data
Convolution      one   1 1 data one 0=8 1=3 11=3 3=2 13=2 4=1 14=1 5=0 6=216
BatchNorm        norm  1 1 one norm 0=8
PReLU            bend  1 1 norm bend 0=8
Split            split 1 2 bend left right
ConvolutionDepthWise deep 1 1 left deep 0=8 1=3 11=3 3=1 13=1 4=1 14=1 5=0 6=72 7=8
BinaryOp         sum   2 1 deep right sum 0=0
ConvolutionDepthWise last 1 1 sum last 0=8 1=56 11=56 3=1 13=1 4=0 14=0 5=0 6=25088 7=8
InnerProduct     fc    1 1 last fc 0=128 1=1 2=1024
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)

    def values(count: int, spread: float = 0.3) -> bytes:
        return random.normal(0, spread, count).astype(np.float32).tobytes()

    tag = np.zeros(1, np.float32).tobytes()
    norm = values(8) + values(8) + random.uniform(0.5, 2, 8).astype(np.float32).tobytes() + values(8)
    data = tag + values(216) + norm + values(8) + tag + values(72) + tag + values(25088, 0.05)
    param, weights = tmp_path / "net.param", tmp_path / "net.bin"
    param.write_text(PARAM)
    weights.write_bytes(data + tag + values(1024) + values(128))
    return param, weights


def test_it_gives_what_ncnn_gives(files: tuple[Path, Path]) -> None:
    picture = np.random.default_rng(1).normal(0, 1, (3, 112, 112)).astype(np.float32)
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    net.load_param(str(files[0]))
    net.load_model(str(files[1]))
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(picture).clone())
    wanted = np.array(extractor.extract("fc")[1])
    with open_session(read_ncnn(*files).SerializeToString()) as session:
        (got,) = session.run({"data": picture[None]}).values()
    np.testing.assert_allclose(got[0], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data + b"\0" * 4])
def test_weights_of_another_network_are_refused(files: tuple[Path, Path], change) -> None:
    files[1].write_bytes(change(files[1].read_bytes()))
    with pytest.raises(InputError):
        read_ncnn(*files)


def test_another_layer_or_file_is_refused(files: tuple[Path, Path]) -> None:
    files[0].write_text(PARAM.replace("InnerProduct ", "Softmax      "))
    with pytest.raises(InputError, match="Softmax"):
        read_ncnn(*files)
    files[0].write_text("no ncnn")
    with pytest.raises(InputError, match=r"\.param"):
        read_ncnn(*files)


def test_the_command_writes_a_model_that_can_be_exported(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prelu.onnx"
    assert main([str(files[0]), "--out", str(out)]) == 0
    assert out.read_bytes() == read_ncnn(*files).SerializeToString()
    assert out.with_suffix(".toml").read_text() == CONTRACT
    assert main([str(tmp_path / "no.param"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("ncnn_model: ")
