from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from edge.errors import InputError
from training.checkpoint import load_embedder, load_head, load_head_identities, save_embedder, save_head
from training.mobilefacenet import Activation, MobileFaceNet


def _random_net(activation: Activation = "relu", size: int = 512) -> MobileFaceNet:
    torch.manual_seed(3)
    model = MobileFaceNet(size, activation)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return model.eval()


def _same_output(a: MobileFaceNet, b: MobileFaceNet) -> bool:
    x = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        return torch.equal(a(x), b(x))


@pytest.mark.parametrize(("activation", "size"), [("relu", 512), ("prelu", 128)])
def test_safetensors_round_trip_keeps_outputs_and_says_how_to_feed_it(
    tmp_path: Path, activation: Activation, size: int
) -> None:
    model = _random_net(activation, size)
    save_embedder(tmp_path / "m.safetensors", model, {"dataset": "made up"})
    loaded, info = load_embedder(tmp_path / "m.safetensors")
    assert _same_output(model, loaded)
    assert not loaded.training
    assert (info.activation, info.embedding_size, info.format) == (activation, size, "safetensors")
    assert info.metadata["dataset"] == "made up"
    contract = info.contract
    assert (contract.color, contract.layout, contract.dtype) == ("rgb", "nchw", "float32")
    assert (contract.mean, contract.std, contract.size) == ((127.5,) * 3, (127.5,) * 3, (112, 112))
    assert contract.embedding_size == size


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    save_embedder(tmp_path / "a", _random_net())
    again, _ = load_embedder(tmp_path / "a")
    again.train()(torch.zeros(2, 3, 112, 112))
    for (_, into), (_, source) in zip(again.state_dict().items(), _random_net().state_dict().items(), strict=True):
        into.copy_(source) if into.is_floating_point() else None
    save_embedder(tmp_path / "b", again)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
@pytest.mark.parametrize("counts", [True, False])
def test_state_dicts_of_other_trainers_load_unchanged(
    tmp_path: Path, prefix: str, wrapper: str | None, counts: bool
) -> None:
    model = _random_net("prelu")
    state = {
        prefix + name: t for name, t in model.state_dict().items() if counts or not name.endswith("batches_tracked")
    }
    path = tmp_path / "model_2024-01-01_accuracy_0.99_step_1_final.path"
    torch.save({wrapper: state} if wrapper else state, path)
    loaded, info = load_embedder(path)
    assert _same_output(model, loaded)
    assert (info.activation, info.format) == ("prelu", "torch")


def test_head_of_the_original_pipeline(tmp_path: Path) -> None:
    kernel = torch.randn(512, 5)
    torch.save({"kernel": kernel}, tmp_path / "head_x.path")
    assert torch.equal(load_head(tmp_path / "head_x.path"), kernel)
    save_head(tmp_path / "head.safetensors", kernel, ("a", "b", "c", "d", "e"))
    assert torch.equal(load_head(tmp_path / "head.safetensors"), kernel)
    assert load_head_identities(tmp_path / "head.safetensors") == ("a", "b", "c", "d", "e")
    with pytest.raises(InputError, match="holds a head"):
        load_embedder(tmp_path / "head_x.path")


class _Attack:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, container: str) -> None:
    path, target = tmp_path / "model.pth", tmp_path / "attacked"
    if container == "torch":
        torch.save({"linear.weight": _Attack(str(target))}, path)
    else:
        path.write_bytes(pickle.dumps(_Attack(str(target))))
    with pytest.raises(InputError, match="nothing else is loaded from a pickle"):
        load_embedder(path)
    assert not target.exists()


def test_foreign_and_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    model = _random_net()
    save_embedder(tmp_path / "good.safetensors", model)
    good = (tmp_path / "good.safetensors").read_bytes()
    state = model.state_dict()
    torch.save(state, tmp_path / "good.pth")
    nan = {**state, "linear.weight": torch.full((512, 512), torch.nan)}
    cases = {
        "cut.safetensors": good[: len(good) // 2],
        "cut.pth": (tmp_path / "good.pth").read_bytes()[:5000],
        "empty.pth": b"",
        "text.pth": b"hello, this is a text file\n",
        "json.pth": b'{"a": 1}, and more text',
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "foreign.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({k: v for k, v in state.items() if k != "bn.weight"}, tmp_path / "lacks.pth")
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({**state, "conv1.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "shape.pth")
    torch.save(nan, tmp_path / "nan.pth")
    for name in [*cases, "foreign.pth", "list.pth", "lacks.pth", "more.pth", "shape.pth", "nan.pth", "absent.pth"]:
        with pytest.raises(InputError) as caught:
            load_embedder(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value), name


@pytest.mark.parametrize("name", ["foreign.pth", "foreign.onnx"])
def test_another_network_is_told_how_it_is_exported(tmp_path: Path, name: str) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / name)
    with pytest.raises(InputError, match=r"edge export --onnx FILE --contract FILE\.toml$"):
        load_embedder(tmp_path / name)


def test_file_of_another_architecture_says_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in _random_net().state_dict().items()}, tmp_path / "x", {"arch": "resnet"})
    with pytest.raises(InputError, match="resnet"):
        load_embedder(tmp_path / "x")
