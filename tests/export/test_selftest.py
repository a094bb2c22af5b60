"""A machine that computes otherwise than the export did is told so."""

from __future__ import annotations

import argparse
import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge.cli.doctor import VERB
from edge.contract import ModelContract
from edge.engines import open_session
from edge.errors import BundleError
from edge.manifest import Variant
from edge.selftest import ENTRY, answers, mean_cosine, probes, run_self_test
from export.calibration import observe
from export.calibration.methods import min_max
from export.graph import Graph
from export.passes import embed_preprocessing, l2_normalise
from export.passes.embed_preprocessing import bundle_contract
from export.passes.qdq import placement
from export.selftest import exact_answers, self_test_entry
from export.variants import int8_model
from export.writer import Artefact, write_bundle

NETWORK = ModelContract("embedder", (112, 112), "rgb", "nchw", "float32", (127.5,) * 3, (127.5,) * 3, "arcface-112", 64)
CONTRACT = bundle_contract(NETWORK, normalised=True)


@pytest.fixture(scope="module")
def models(relu_graph: onnx.ModelProto) -> dict[str, bytes]:
    """FP32, INT8, and the INT8 an engine would compute that cuts off large weights."""
    fp32 = l2_normalise(embed_preprocessing(relu_graph, NETWORK))
    tensors = placement(fp32).tensors
    ranges = {name: min_max(h) for name, h in observe(fp32, tensors, lambda: [probes(CONTRACT)]).items()}
    int8 = int8_model(fp32, ranges, "int8-cpu")
    cut = Graph(int8)
    for name, value in cut.arrays.items():
        if value.dtype == np.int8 and value.ndim > 1:
            cut.arrays[name] = np.clip(value, -48, 48)
    return {
        "fp32": fp32.SerializeToString(),
        "int8": int8.SerializeToString(),
        "cut": cut.close().SerializeToString(),
    }


def artefact(models: dict[str, bytes], precision: str, data: str) -> Artefact:
    entry = self_test_entry(models[precision], models["fp32"], CONTRACT, precision)
    return Artefact(f"embedder-{precision}", precision, CONTRACT, models[data], measured={ENTRY: entry})


def variant(models: dict[str, bytes], precision: str) -> Variant:
    return artefact(models, precision, precision).variant()


def test_probes_are_the_same_pictures_on_every_machine() -> None:
    faces, frame = probes(CONTRACT), probes(ModelContract("detector", None))
    assert (faces.shape, frame.shape, faces.dtype) == ((4, 112, 112, 3), (1, 64, 64, 3), np.uint8)
    assert hashlib.sha256(faces.tobytes()).hexdigest()[:16] == "1ce8a20c43a22460"
    assert hashlib.sha256(frame.tobytes()).hexdigest()[:16] == "c932a8a25d7e565b"
    assert all(np.abs(a.astype(int) - b).mean() > 10 for a, b in combinations(faces, 2))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_sound_engine_passes(models: dict[str, bytes], precision: str) -> None:
    with open_session(models[precision]) as session:
        result = run_self_test(session, variant(models, precision))
    assert result is not None
    assert result.passed
    assert "computes as exported" in str(result)


def test_arithmetic_that_cuts_off_is_noticed(models: dict[str, bytes]) -> None:
    with open_session(models["cut"]) as session:
        result = run_self_test(session, variant(models, "int8"))
    assert result is not None
    assert not result.passed
    assert "DEVIATES" in str(result)


def test_stored_answers_are_those_of_exact_arithmetic(models: dict[str, bytes]) -> None:
    with open_session(models["fp32"]) as session:
        assert mean_cosine(answers(session, probes(CONTRACT)), exact_answers(models["fp32"], CONTRACT)) > 1 - 1e-9
    assert mean_cosine(np.full((1, 2), np.nan), np.ones((1, 2))) == 0.0


@pytest.mark.parametrize(
    ("change", "says"),
    [({"answers": "%%%"}, "damaged"), ({"count": 3}, "damaged"), ({"answers": ""}, "another model|damaged")],
)
def test_damaged_answers_are_refused(models: dict[str, bytes], change: dict[str, object], says: str) -> None:
    sound = variant(models, "fp32")
    sound.measured[ENTRY] = {**sound.measured[ENTRY], **change}
    with open_session(models["fp32"]) as session, pytest.raises(BundleError, match=says):
        run_self_test(session, sound)


def doctor(*words: object) -> int:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    return VERB.run(parser.parse_args([str(word) for word in words]))


def test_the_doctor_tells_which_variant_deviates(
    models: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = [artefact(models, "fp32", "fp32"), artefact(models, "int8", "int8")]
    write_bundle(tmp_path / "a.bundle", sound, {})
    assert doctor("--bundle", tmp_path / "a.bundle") == 0
    assert "computes as exported" in capsys.readouterr().out
    write_bundle(tmp_path / "b.bundle", [sound[0], artefact(models, "int8", "cut")], {})
    assert doctor("--bundle", tmp_path / "b.bundle", "--json") == 3
    told = [entry for entry in json.loads(capsys.readouterr().out) if entry["area"] == "bundle"]
    assert {entry["name"].split(",")[0] for entry in told if not entry["usable"]} == {"embedder-int8"}
