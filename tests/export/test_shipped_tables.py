"""The tables beside the weights that ship hold what every variant of a bundle needs, so that no photo is."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.options import PRECISIONS
from export.calibration.table import read_tables, read_thresholds

VARIANTS = {*PRECISIONS, "int8-tensorrt"}


@pytest.mark.parametrize("name", ["mobilefacenet-512", "mobilefacenet-avengers"])
def test_every_variant_has_a_threshold_or_a_score(repository: Path, name: str) -> None:
    table = repository / "model_weights" / f"{name}.calibration.json"
    thresholds = read_thresholds(table)
    assert set(thresholds) == {f"embedder-{variant}" for variant in VARIANTS}
    assert len({(one.far, one.pairs, one.source) for one in thresholds.values()}) == 1
    (scores,) = (one.detection_scores for one in read_tables(table) if one.role == "detector")
    assert set(scores) == {f"detector-{variant}" for variant in VARIANTS}
