"""Every way to make INT8 gives a model that packs pixels and answers as its float model does."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")

from benchmarks.int8 import adaround, options
from edge.engines import open_session
from edge.weights import find_weights
from export.passes import Passes
from export.sources import load_detector

pytestmark = pytest.mark.usefixtures("exports_are_remembered")


@pytest.mark.slow
def test_roundings_that_were_chosen_are_of_the_layer_that_reads_pixels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaround, "Recipe", partial(adaround.Recipe, steps=3))
    model = load_detector(find_weights("edge-detector", "detector"), Passes()).float_model
    batches = [np.random.default_rng(i).integers(0, 256, (1, 64, 96, 3)).astype(np.uint8) for i in range(2)]
    names = ("neighbours within 128", "rounding by output", "AdaRound", "AdaRound, biases corrected after")
    made = options.int8_variants(model, batches, names)
    with open_session(model.SerializeToString()) as session:
        wanted = session.run({session.inputs[0].name: batches[0]})["bbox_8"]
    for name in names:
        assert b"packed" in made[name], name
        with open_session(made[name]) as session:
            got = session.run({session.inputs[0].name: batches[0]})["bbox_8"]
        assert float(np.corrcoef(got.ravel(), wanted.ravel())[0, 1]) > 0.9, name
    assert made["AdaRound"] != made["neighbours within 128"]
