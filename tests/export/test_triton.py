"""The Triton repository: every configuration read by Triton's own schema, and compared with the ONNX beside it."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.contract import ModelContract
from edge.engines import open_session
from edge.errors import BundleError, ContractError, GateError, InputError
from edge.manifest import DetectionScore, Threshold
from export.passes import embed_preprocessing, l2_normalise
from export.triton import TritonOptions, write_repository
from export.triton.cli import VERB
from export.triton.config import TYPES, require_valid, schema
from export.writer import Artefact, write_bundle

DETECTOR = ModelContract(role="detector", size=None)
EMBEDDER = ModelContract(role="embedder", size=(112, 112), template="arcface-112", embedding_size=64, normalised=True)
FED = ModelContract(
    role="embedder", size=(112, 112), color="rgb", layout="nchw", dtype="float32", template="arcface-112",
    embedding_size=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def module() -> Any:
    found = schema()
    if found is None:
        pytest.skip("needs tritonclient")
    return found


@pytest.fixture(scope="module")
def finder() -> bytes:
    """A detector of free batch, height and width."""
    from edge.weights import find_weights
    from export.passes import Passes
    from export.sources import load_detector

    return bytes(load_detector(find_weights(None, "detector"), Passes()).float_model.SerializeToString())


@pytest.fixture(scope="module")
def bundle(relu_graph, finder: bytes, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = l2_normalise(embed_preprocessing(relu_graph, FED)).SerializeToString()
    threshold = Threshold(0.4, 1e-3, 1000, "test")
    score = DetectionScore(0.476, 0.5, 0.473, 0.48, 900, 880, 300, "test")
    artefacts = [
        Artefact("embedder-fp32", "fp32", EMBEDDER, model, threshold=threshold),
        Artefact("detector-fp32", "fp32", DETECTOR, finder, detection_score=score),
    ]
    return write_bundle(tmp_path_factory.mktemp("triton") / "b", artefacts, {})


@pytest.mark.parametrize(
    "options",
    [
        TritonOptions(),
        TritonOptions(device="gpu", instances=2, max_batch=32, max_delay=500),
        TritonOptions(max_batch=1),
    ],
    ids=["cpu", "gpu", "no batching"],
)
def test_tritons_schema_reads_what_the_onnx_says(
    options: TritonOptions, bundle: Bundle, module: Any, tmp_path: Path
) -> None:
    write_repository(bundle, tmp_path / "r", options)
    for role in ("detector", "embedder"):
        folder = tmp_path / "r" / f"arcedge_{role}"
        config = require_valid((folder / "config.pbtxt").read_text(), module)
        assert config.name == folder.name
        assert config.platform == "onnxruntime_onnx"
        assert config.max_batch_size == options.max_batch
        with open_session(folder / "1" / "model.onnx") as session:
            for given, specs in ((config.input, session.inputs), (config.output, session.outputs)):
                assert [tensor.name for tensor in given] == [spec.name for spec in specs]
                for tensor, spec in zip(given, specs, strict=True):
                    assert module.DataType.Name(tensor.data_type) == TYPES[spec.dtype]
                    assert [None if size == -1 else size for size in tensor.dims] == list(spec.shape[1:])
        (group,) = config.instance_group
        assert group.count == options.instances
        assert group.Kind.Name(group.kind) == ("KIND_GPU" if options.device == "gpu" else "KIND_CPU")
        if options.max_batch > 1:
            assert max(config.dynamic_batching.preferred_batch_size) == options.max_batch
            assert config.dynamic_batching.max_queue_delay_microseconds == options.max_delay
        else:
            assert not config.HasField("dynamic_batching")
        variant = bundle.select(role)
        assert json.loads(config.parameters["arcedge.contract"].string_value) == variant.contract.to_dict()
        assert (folder / "1" / "model.onnx").read_bytes() == bundle.load(variant)
        assert ("arcedge.threshold" in config.parameters) == (role == "embedder")
        assert ("arcedge.detection_score" in config.parameters) == (role == "detector")
    config = require_valid((tmp_path / "r" / "arcedge_detector" / "config.pbtxt").read_text(), module)
    assert config.parameters["arcedge.detection_score"].string_value == "0.476"


def test_the_models_take_the_batches_the_configuration_promises(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "r", TritonOptions(max_batch=4))
    with open_session(tmp_path / "r" / "arcedge_embedder" / "1" / "model.onnx") as session:
        rows = session.run({"pixels": np.zeros((4, 112, 112, 3), np.uint8)})["embedding"]
    assert rows.shape == (4, 64)
    with open_session(tmp_path / "r" / "arcedge_detector" / "1" / "model.onnx") as session:
        heads = session.run({"pixels": np.zeros((3, 96, 128, 3), np.uint8)})
    assert {value.shape[0] for value in heads.values()} == {3}


def test_another_model_is_the_next_version_other_options_are_not_and_leftovers_are_none(
    bundle: Bundle, finder: bytes, relu_graph, tmp_path: Path
) -> None:
    def write(bundle: Bundle, **options: Any) -> dict[str, int]:
        return {
            model.model: model.version for model in write_repository(bundle, tmp_path / "r", TritonOptions(**options))
        }

    assert write(bundle) == {"arcedge_detector": 1, "arcedge_embedder": 1}
    assert write(bundle, max_batch=4) == {"arcedge_detector": 1, "arcedge_embedder": 1}
    assert "max_batch_size: 4" in (tmp_path / "r" / "arcedge_embedder" / "config.pbtxt").read_text()
    named = embed_preprocessing(relu_graph, FED)
    named.producer_name = "another"
    model = l2_normalise(named).SerializeToString()
    artefacts = [
        Artefact("embedder-fp32", "fp32", EMBEDDER, model, threshold=Threshold(0.4, 1e-3, 1000, "test")),
        Artefact("detector-fp32", "fp32", DETECTOR, finder),
    ]
    other = write_bundle(tmp_path / "other", artefacts, {})
    assert write(other, max_batch=2) == {"arcedge_detector": 1, "arcedge_embedder": 2}
    files = sorted(path.relative_to(tmp_path / "r").as_posix() for path in (tmp_path / "r").rglob("*"))
    both = [f"arcedge_{role}{rest}" for role in ("detector", "embedder") for rest in ("", "/1", "/1/model.onnx")]
    both += ["arcedge_embedder/2", "arcedge_embedder/2/model.onnx"]
    assert files == sorted([*both, "arcedge_detector/config.pbtxt", "arcedge_embedder/config.pbtxt"])
    assert write(bundle) == {"arcedge_detector": 1, "arcedge_embedder": 3}, "the way back is a new version"
    assert "max_batch_size: 2" not in (tmp_path / "r" / "arcedge_embedder" / "config.pbtxt").read_text()


def test_a_folder_of_something_else_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="holds photos"):
        write_repository(bundle, tmp_path, TritonOptions())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file or link"):
        write_repository(bundle, tmp_path / "file", TritonOptions())


def test_a_landmarker_that_the_bundle_lacks_stays_and_is_named(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "r", TritonOptions())
    former = tmp_path / "r" / "arcedge_landmarker"
    shutil.copytree(tmp_path / "r" / "arcedge_detector", former)
    said: list[str] = []
    write_repository(bundle, tmp_path / "r", TritonOptions(), said.append)
    assert [line for line in said if str(former) in line and "no landmarker" in line]
    assert (former / "1" / "model.onnx").is_file()


def test_what_cannot_be_served_is_said_and_nothing_is_written(bundle: Bundle, tmp_path: Path, build) -> None:
    with pytest.raises(BundleError, match="no int8 detector"):
        write_repository(bundle, tmp_path / "r", TritonOptions(precision="int8"))
    with pytest.raises(InputError, match="for CPUs"):
        TritonOptions(precision="int8", device="gpu")
    from onnx import helper

    fixed = build([helper.make_node("Relu", ["x"], ["y"])], {}, [1, 3, 4, 4], [1, 3, 4, 4]).SerializeToString()
    single = write_bundle(
        tmp_path / "b",
        [Artefact("embedder-fp32", "fp32", EMBEDDER, fixed), Artefact("detector-fp32", "fp32", DETECTOR, fixed)],
        {},
    )
    with pytest.raises(ContractError, match="a batch of 1 alone"):
        write_repository(single, tmp_path / "r", TritonOptions())
    assert not list((tmp_path / "r").rglob("*")), "neither model nor leftover"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"max_delay": -4}, "cannot wait -4 µs"),
        ({"max_batch": 0}, "batch 0: 1 is the least"),
        ({"instances": 0}, "0 instances"),
    ],
)
def test_numbers_that_are_none_say_what_is_wrong_with_them(words: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        TritonOptions(**words)  # type: ignore[arg-type]
    assert "too few" not in str(caught.value)
    assert TritonOptions(max_delay=0).max_delay == 0, "not to wait at all is no mistake"


def test_a_configuration_that_does_not_fit_the_schema_is_refused(module: Any) -> None:
    with pytest.raises(GateError, match="Triton's schema"):
        require_valid('name: "x"\nmax_batch: 3\n', module)


def test_the_command_says_what_it_wrote(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    assert VERB.run(parser.parse_args(["--bundle", str(bundle.path), "--out", str(tmp_path / "r")])) == 0
    assert "arcedge_embedder: version 1, embedder-fp32" in capsys.readouterr().out
