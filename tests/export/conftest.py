"""Networks and graphs the export tests share: small, random, and awkward on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from exported import REAL_EXPORTER  # noqa: E402

from edge.engines import open_session  # noqa: E402
from export import to_onnx  # noqa: E402
from export.calibration import CalibrationTable  # noqa: E402
from export.calibration.photos import synthetic_crops  # noqa: E402
from export.passes import Passes  # noqa: E402
from export.sources import load_embedder_checkpoint  # noqa: E402
from export.to_onnx import embedder_to_onnx  # noqa: E402
from export.variants import calibrate_embedder  # noqa: E402
from training.checkpoint import save_embedder  # noqa: E402
from training.mobilefacenet import MobileFaceNet  # noqa: E402

Run = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="session", autouse=True)
def _remember(exports_are_remembered: None) -> None:
    """For all tests here."""


@pytest.fixture
def exporter_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's exporter for this test, nothing remembered."""
    monkeypatch.setattr(to_onnx, "_export", REAL_EXPORTER)


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a model on one input, and gives its outputs by name."""

    def runner(model: onnx.ModelProto, value: np.ndarray) -> dict[str, np.ndarray]:
        with open_session(model.SerializeToString()) as session:
            return session.run({session.inputs[0].name: value})

    return runner


def trained_looking(activation: str, seed: int = 0) -> MobileFaceNet:
    """A network whose BatchNorms and slopes are anything but the identity that they start as."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = MobileFaceNet(64, activation)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, torch.nn.PReLU):
                module.weight.normal_(0.2, 0.5, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def relu_network() -> MobileFaceNet:
    return trained_looking("relu")


@pytest.fixture(scope="session")
def prelu_network() -> MobileFaceNet:
    return trained_looking("prelu")


@pytest.fixture(scope="session")
def relu_table(relu_network: MobileFaceNet, tmp_path_factory: pytest.TempPathFactory) -> CalibrationTable:
    """Ranges of `relu_network` over twelve made-up crops; all methods are tried, which takes seconds."""
    file = tmp_path_factory.mktemp("relu") / "face.safetensors"
    save_embedder(file, relu_network)
    return calibrate_embedder(load_embedder_checkpoint(file, Passes()), synthetic_crops(12), "ab" * 32, quiet=True)


@pytest.fixture(scope="session")
def sample() -> np.ndarray:
    """(3, 3, 112, 112) float32 in [-1, 1]."""
    return np.random.default_rng(1).uniform(-1, 1, (3, 3, 112, 112)).astype(np.float32)


@pytest.fixture(scope="session")
def relu_graph(relu_network: MobileFaceNet, sample: np.ndarray) -> onnx.ModelProto:
    return embedder_to_onnx(relu_network, sample)


@pytest.fixture(scope="session")
def prelu_graph(prelu_network: MobileFaceNet, sample: np.ndarray) -> onnx.ModelProto:
    return embedder_to_onnx(prelu_network, sample)


@pytest.fixture(scope="session")
def build() -> Callable[..., onnx.ModelProto]:
    """build(nodes, initialisers, input shape, output shape) → a checked opset-17 model from `x` to `y`."""

    def builder(
        nodes: list[onnx.NodeProto],
        arrays: dict[str, np.ndarray],
        shape: list[int | str],
        out: list[int | str] | None,
        opset: int = 17,
    ) -> onnx.ModelProto:
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                nodes,
                "test",
                [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
                [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, out)],
                [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()],
            ),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=8,
        )
        onnx.checker.check_model(model)
        return model

    return builder
