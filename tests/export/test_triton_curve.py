"""Dynamic batching from measured curves: curves whose right answer is known, and reports as edge bench writes them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import quantiles
from edge.bundle import Bundle
from edge.contract import ModelContract
from edge.errors import InputError
from export.triton.cli import VERB
from export.triton.config import require_valid, schema
from export.triton.curve import Batching, Point, choose_batching, read_curve
from export.writer import Artefact, write_bundle

SIZES = (1, 2, 4, 8, 16, 32, 64)


def curve(*times: float, spread: float = 0.01) -> list[Point]:
    """Milliseconds a face at batches of 1, 2, 4, …, each known to a share."""
    return [Point(2**i, ms, ms * (1 - spread), ms * (1 + spread)) for i, ms in enumerate(times)]


@pytest.mark.parametrize(
    ("points", "largest", "wanted"),
    [
        # A fixed cost of 8 and 1 a face, as a GPU behaves: gains end where the fixed cost is spread.
        (curve(9, 5, 3, 2, 1.5, 1.25, 1.125), 64, Batching(64, (2, 4, 8, 16, 32, 64), 9000)),
        (curve(9, 5, 3, 2, 1.5, 1.25, 1.125), 8, Batching(8, (2, 4, 8), 9000)),
        # Nothing gained beyond 4, and 8 even slower.
        (curve(4, 2, 1, 1.2, 1.0, 0.99, 0.98), 64, Batching(4, (2, 4), 4000)),
        # 2 is slower than 1 alone; 4 is worth it.
        (curve(4, 5, 2), 64, Batching(4, (4,), 4000)),
        # A processor with one core: nothing is worth waiting for.
        (curve(4, 4, 4.1, 3.95), 64, Batching(1, (), 4000)),
        # A gain that the measurement cannot tell from chance is none.
        (curve(4, 3, spread=0.3), 64, Batching(1, (), 4000)),
        (curve(4, 3, spread=0.1), 64, Batching(2, (2,), 4000)),
    ],
)
def test_sizes_that_gain_are_preferred_and_no_others(points: list[Point], largest: int, wanted: Batching) -> None:
    assert choose_batching(points, largest) == wanted


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=7), st.sampled_from(SIZES))
def test_whatever_was_measured_the_choice_can_be_configured(times: list[float], largest: int) -> None:
    points = curve(*times)
    chosen = choose_batching(points, largest)
    assert list(chosen.preferred) == sorted(set(chosen.preferred))
    assert all(1 < size <= min(chosen.most, largest) for size in chosen.preferred)
    assert chosen.most == max((1, *chosen.preferred))
    assert chosen.delay >= 1
    taken = {point.batch: point.ms for point in points}
    assert taken[chosen.most] <= taken[1]
    assert chosen == choose_batching(points[::-1], largest)


def test_a_curve_without_a_batch_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="no batch of 1"):
        choose_batching(curve(4, 2)[1:], 8)


def report(rows: dict[str, list[float]], engines: dict[str, str] | None = None) -> dict[str, Any]:
    """As `edge bench` writes it: the same quantiles over samples drawn about these times."""
    rng = np.random.default_rng(1)
    return {
        "format": "arcedge-bench",
        "version": 1,
        "variants": [
            {"label": label, "precision": label.split()[0].lower(), "engine": (engines or {}).get(label, "onnxruntime")}
            for label in rows
        ],
        "latency": {
            "batches": {
                "sizes": SIZES[: len(next(iter(rows.values())))],
                "rows": {
                    label: [
                        {"batch": 2**i, "ms_per_face": quantiles(ms * rng.normal(1, 0.01, 40)).to_dict()}
                        for i, ms in enumerate(times)
                    ]
                    for label, times in rows.items()
                },
            }
        },
    }


def write(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_a_curve_is_read_off_a_report(tmp_path: Path) -> None:
    file = write(tmp_path / "report.json", report({"FP32": [4, 2], "FP16": [9, 5, 3]}))
    assert [point.batch for point in read_curve(file, "fp16")] == [1, 2, 4]
    assert read_curve(file, "fp32")[1].ms == pytest.approx(2, rel=0.01)
    with pytest.raises(InputError, match="no batches of int8"):
        read_curve(file, "int8")
    several = {"FP32 onnxruntime": [4.0, 2.0], "FP32 tensorrt": [1.0, 0.5]}
    engines = {label: label.split()[1] for label in several}
    file = write(tmp_path / "several.json", report(several, engines))
    with pytest.raises(InputError, match="--curve-engine"):
        read_curve(file, "fp32")
    assert read_curve(file, "fp32", "tensorrt")[0].ms == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: [],
        lambda values: {**values, "format": "else"},
        lambda values: {**values, "latency": {}},
        lambda values: {**values, "latency": {"batches": None}},
        lambda values: {**values, "latency": {"batches": {"rows": {"FP32": [{"batch": 1}]}}}},
        lambda values: {
            **values,
            "latency": {"batches": {"rows": {"FP32": [{"batch": 1, "ms_per_face": {"p50": None}}]}}},
        },
        lambda values: {**values, "variants": 3},
    ],
)
def test_what_is_no_report_or_damaged_is_refused_in_one_line(damage: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "report.json", damage(report({"FP32": [4, 2]})))
    with pytest.raises(InputError) as caught:
        read_curve(file, "fp32")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_curve(tmp_path / "none.json", "fp32")


@pytest.fixture
def bundle(tmp_path: Path, build: Any) -> Bundle:
    from onnx import helper

    relu = build([helper.make_node("Relu", ["x"], ["y"])], {}, ["n", 3, 4, 4], ["n", 3, 4, 4]).SerializeToString()
    embedder = ModelContract(role="embedder", size=(112, 112), template="arcface-112", embedding_size=64)
    models = [("embedder", embedder), ("detector", ModelContract(role="detector", size=None))]
    return write_bundle(tmp_path / "b", [Artefact(f"{role}-fp32", "fp32", own, relu) for role, own in models], {})


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    return VERB.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_embedder_is_configured_as_measured_and_the_detector_as_asked(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (module := schema()) is None:
        pytest.skip("needs tritonclient")
    file = write(tmp_path / "report.json", report({"FP32": [9, 5, 3, 2.95, 2.9]}))
    assert run("--bundle", bundle.path, "--out", tmp_path / "r", "--curve", file, "--max-batch", 32) == 0
    assert "batches of 2, 4 are worth waiting for" in capsys.readouterr().out
    configs = {
        role: require_valid((tmp_path / "r" / f"arcedge_{role}" / "config.pbtxt").read_text(), module)
        for role in ("embedder", "detector")
    }
    assert configs["embedder"].max_batch_size == 4
    assert list(configs["embedder"].dynamic_batching.preferred_batch_size) == [2, 4]
    assert configs["embedder"].dynamic_batching.max_queue_delay_microseconds == pytest.approx(9000, rel=0.02)
    assert configs["detector"].max_batch_size == 32
    assert configs["detector"].dynamic_batching.max_queue_delay_microseconds == 2000


def test_where_batches_gain_nothing_none_is_waited_for(bundle: Bundle, tmp_path: Path) -> None:
    file = write(tmp_path / "report.json", report({"FP32": [4, 4, 4]}))
    assert run("--bundle", bundle.path, "--out", tmp_path / "r", "--curve", file) == 0
    text = (tmp_path / "r" / "arcedge_embedder" / "config.pbtxt").read_text()
    assert "max_batch_size: 1\n" in text
    assert "dynamic_batching" not in text
    with pytest.raises(InputError, match="needs --curve"):
        run("--bundle", bundle.path, "--out", tmp_path / "r", "--curve-engine", "onnxruntime")
