from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from edge.contract import ModelContract  # noqa: E402
from edge.errors import GateError  # noqa: E402
from export.agreement import compare_embeddings, embed_with  # noqa: E402
from export.calibration.bias_correction import bias_correction  # noqa: E402
from export.passes import Passes  # noqa: E402
from export.passes.embed_preprocessing import bundle_contract, embed_preprocessing  # noqa: E402
from export.passes.l2_normalise import l2_normalise  # noqa: E402
from export.repairing import repaired  # noqa: E402
from export.request import Budget  # noqa: E402
from export.sources import Source  # noqa: E402
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


def test_a_repaired_table_keeps_what_was_promised(source: Source) -> None:
    """What is built from the table, with its biases corrected, is what the repair judged."""
    crops = np.random.default_rng(1).integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)
    table = calibrate_embedder(source, crops, "", quiet=True)
    table = replace(table, shifts=bias_correction(equalised_source(source, table).float_model, [crops[:8]]))
    assert table.shifts
    moved, said = equalised_source(source, table), list[str]()
    assert repaired(moved, table, crops, Budget(min_cosine=table.figure - 1e-6), said.append) is table
    least = table.figure + 0.3 * (1 - table.figure)
    fixed = repaired(moved, table, crops, Budget(min_cosine=least), said.append)
    assert 0 < len(fixed.keep) <= 3
    (built,) = build_variants(source, ("int8",), fixed, Passes())
    judged = held_out(crops)
    rows, reference = (
        embed_with(data, source.contract, judged) for data in (built.data, source.float_model.SerializeToString())
    )
    promised = float(said[-1].rpartition(" ")[2])
    assert promised >= least
    assert compare_embeddings(rows, reference, "").mean_cosine == pytest.approx(promised, abs=2e-5)
    with pytest.raises(GateError, match="with half of its layers in float"):
        repaired(moved, table, crops, Budget(min_cosine=1.0), said.append)
