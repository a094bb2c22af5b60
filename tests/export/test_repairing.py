from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from edge.contract import ModelContract  # noqa: E402
from edge.errors import GateError, InputError  # noqa: E402
from export.agreement import compare_embeddings, embed_with  # noqa: E402
from export.calibration.bias_correction import bias_correction  # noqa: E402
from export.calibration.calibrate import MIN_PHOTOS, MIN_PICTURES, split_held_out  # noqa: E402
from export.calibration.table import CalibrationTable  # noqa: E402
from export.labelled import LabelledFaces  # noqa: E402
from export.passes import Passes  # noqa: E402
from export.passes.embed_preprocessing import bundle_contract, embed_preprocessing  # noqa: E402
from export.passes.l2_normalise import l2_normalise  # noqa: E402
from export.repairing import Decision, decide, require_layers, with_named  # noqa: E402
from export.request import ExportRequest  # noqa: E402
from export.sources import Source  # noqa: E402
from export.subject import embedder_subject  # noqa: E402
from export.tradeoff import FLOAT, WHOLE, pareto  # noqa: E402
from export.tradeoff_report import as_text, write_report  # noqa: E402
from export.variants import build_variants, calibrate_embedder, equalised_source, held_out  # noqa: E402

NETWORK = ModelContract("embedder", (16, 16), "bgr", "nchw", "float32", (127.5,) * 3, (127.5,) * 3, "arcface-112", 24)


@pytest.fixture
def source(build: Any) -> Source:
    """Four convolutions with biases; what goes from the first to the second suffers by a channel that is far larger."""
    random = np.random.default_rng(0)
    arrays = {"flat": np.array([0, 4096], np.int64)}
    for name, shape in (("a", (12, 3)), ("b", (16, 12)), ("c", (16, 16)), ("d", (16, 16))):
        arrays[f"{name}.weight"] = random.normal(0, 0.2, (*shape, 3, 3)).astype(np.float32)
        arrays[f"{name}.bias"] = random.normal(0, 0.1, shape[0]).astype(np.float32)
    arrays["a.weight"][0] *= 40
    arrays["b.weight"][:, 0] /= 40
    arrays["y.weight"] = random.normal(0, 0.1, (24, 4096)).astype(np.float32)
    make, nodes, last = onnx.helper.make_node, [], "x"
    for name in "abcd":
        nodes.append(make("Conv", [last, f"{name}.weight", f"{name}.bias"], [name], pads=[1, 1, 1, 1]))
        nodes.append(make("Relu", [name], [f"{name}.relu"]))
        last = f"{name}.relu"
    nodes += [make("Reshape", [last, "flat"], ["flattened"])]
    nodes += [make("Gemm", ["flattened", "y.weight"], ["y"], transB=1)]
    model = l2_normalise(embed_preprocessing(build(nodes, arrays, ["n", 3, 16, 16], ["n", 24]), NETWORK))
    return Source(Path("weights"), "", "torch", model, bundle_contract(NETWORK, normalised=True))


CROPS = np.random.default_rng(1).integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)


@pytest.fixture
def table(source: Source) -> CalibrationTable:
    found = calibrate_embedder(source, CROPS, "", quiet=True)
    found = replace(found, shifts=bias_correction(equalised_source(source, found).float_model, [CROPS[:8]]))
    assert found.shifts
    return found


@pytest.mark.parametrize("count", [1, 9])
def test_too_few_photos_are_refused_before_anything_is_computed(source: Source, count: int) -> None:
    with pytest.raises(InputError, match=f"^{count} calibration photos with a face are too few; 10 is the least"):
        calibrate_embedder(source, CROPS[:count], "", quiet=True)


def test_the_least_photos_are_enough(source: Source) -> None:
    assert calibrate_embedder(source, CROPS[:MIN_PHOTOS], "", quiet=True).count == MIN_PICTURES


def decided(source: Source, table: CalibrationTable, least: float, **asked: Any) -> Decision:
    held = CROPS[split_held_out(len(CROPS))[1]]
    people = LabelledFaces(held, np.arange(len(held)) // 2, "")
    subject = embedder_subject(source, table, held, "made-up crops", people, 1e-3)
    return decide(subject, least, ExportRequest(out=Path("b"), quiet=True, **asked), asked.pop("tell", lambda _: None))


def cosine(source: Source, table: CalibrationTable) -> float:
    """Of the model that is built from the table."""
    (built,) = build_variants(source, ("int8",), table, Passes())
    rows, reference = (
        embed_with(data, source.contract, held_out(CROPS))
        for data in (built.data, source.float_model.SerializeToString())
    )
    return compare_embeddings(rows, reference, "").mean_cosine


def test_a_repaired_table_keeps_what_was_promised(source: Source, table: CalibrationTable) -> None:
    """What is built from the table, with its biases corrected, is what the repair judged."""
    whole = cosine(source, table)
    untouched = decided(source, table, whole - 1e-6)
    assert untouched.table is table
    assert untouched.trade_off is None
    least = whole + 0.3 * (1 - whole)
    fixed = decided(source, table, least)
    assert 0 < len(fixed.table.keep) <= 3
    assert fixed.trade_off is not None, "what a repair costs is always measured"
    promised = fixed.trade_off.choice.scores.figure
    assert fixed.trade_off.choice.keep == frozenset(fixed.table.keep)
    assert promised >= least
    assert cosine(source, fixed.table) == pytest.approx(promised, abs=2e-5)
    assert "the fewest" in fixed.trade_off.why
    with pytest.raises(GateError, match="with half of its layers in float"):
        decided(source, table, 1.0)
    with pytest.raises(GateError, match=r"over made-up crops, the budget is 1\.0"):
        decided(source, table, 1.0)


def test_without_repair_nothing_is_kept(source: Source, table: CalibrationTable) -> None:
    assert decided(source, table, 0.99999, repair=False).table is table


def test_a_report_shows_every_layer_and_the_front(source: Source, table: CalibrationTable, tmp_path: Path) -> None:
    """Asked for, without need of a repair; every layer's two figures and what keeping it costs."""
    found = decided(source, table, 0.0, report=tmp_path).trade_off
    assert found is not None
    assert found.chosen == WHOLE
    layers = {entry.layer for entry in found.layers}
    assert layers == {"a.equalised", "b.equalised", "c.equalised", "d", "y"}
    assert layers | {WHOLE, FLOAT, "2 layers", "3 layers"} == {point.name for point in found.points}
    assert found.point(FLOAT).scores.figure == pytest.approx(1.0, abs=1e-6)
    assert found.point(FLOAT).front, "nothing is nearer to FP32 than FP32"
    for entry in found.layers:
        assert found.point(entry.layer).scores == entry.without
        assert found.point(entry.layer).milliseconds.value > 0
        assert entry.alone.lost is not None, "people are known, so TAR is measured"
    assert any("too few pairs to decide" in remark for remark in found.remarks)
    paths = write_report([found], tmp_path / "report")
    assert {path.name for path in paths} == {"precision.json", "precision.md", "embedder-trade-off.png"}
    assert (tmp_path / "report" / "embedder-trade-off.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "precision.md").read_text()
    assert all(f"| {entry.layer} |" in page for entry in found.layers)
    assert "all but it" in page
    assert "→ INT8" in as_text(found)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([found], tmp_path / "file")


def test_layers_are_kept_by_name(source: Source, table: CalibrationTable) -> None:
    named = with_named(source, table, ("b", "nobody"))
    assert named.keep == ("b.equalised",)
    assert cosine(source, named) > cosine(source, table)
    require_layers(("a", "y"), [source])
    require_layers(("a", "a.equalised", "y"), [equalised_source(source, table)])
    with pytest.raises(InputError, match="--keep conv: no layer"):
        require_layers(("conv",), [source])


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    """Against the definition, point by point; and from every point off the front one on it is as good."""
    random = np.random.default_rng(seed)
    points = {str(i): (float(x), float(y)) for i, (x, y) in enumerate(random.integers(0, 6, (12, 2)))}
    front = pareto(points)
    for name, (cost, worth) in points.items():
        beaten = [o for o, (c, w) in points.items() if c <= cost and w >= worth and (c < cost or w > worth)]
        assert (name in front) == (not beaten)
        assert any(points[on][0] <= cost and points[on][1] >= worth for on in front)
