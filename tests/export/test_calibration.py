from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edge.errors import InputError
from edge.manifest import Threshold
from edge.signatures import PictureSignature
from export.calibration import METHODS, CalibrationTable, Histogram, observe, read_tables, write_tables
from export.calibration.calibrate import CalibrationData, calibrate
from export.calibration.methods import BINS
from export.calibration.photos import align_photos, list_photos, mosaics, synthetic_crops
from export.calibration.table import read_thresholds
from export.passes.qdq import Ranges


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0].astype(np.int64))


def error(values: np.ndarray, low: float, high: float) -> float:
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    return float(np.square(values - np.clip(np.rint(values / step) * step, low, high)).mean())


def test_observed_ranges_are_the_true_ones(build) -> None:
    model = build([helper.make_node("Mul", ["x", "two"], ["y"])], {"two": np.array(2, np.float32)}, ["n", 4], ["n", 4])
    batches = [np.random.default_rng(i).normal(i, 1, (5, 4)).astype(np.float32) for i in range(3)]
    seen = observe(model, ("y",), lambda: batches)["y"]
    everything = 2 * np.concatenate(batches)
    assert seen.low == pytest.approx(everything.min(), rel=1e-6)
    assert seen.high == pytest.approx(everything.max(), rel=1e-6)
    np.testing.assert_array_equal(seen.counts, np.histogram(everything, BINS, (seen.low, seen.high))[0])


def test_values_that_are_not_finite_are_refused(build) -> None:
    model = build([helper.make_node("Log", ["x"], ["y"])], {}, ["n", 1], ["n", 1])
    with pytest.raises(InputError, match="sound"):
        observe(model, ("y",), lambda: [np.zeros((1, 1), np.float32)])


def test_min_max_keeps_everything_and_percentiles_drop_the_tails() -> None:
    values = np.random.default_rng(0).normal(0, 1, 200_000)
    assert METHODS["min-max"](histogram(values)) == (values.min(), values.max())
    low, high = METHODS["percentile-99.9"](histogram(values))
    assert (low, high) == pytest.approx((np.quantile(values, 0.0005), np.quantile(values, 0.9995)), abs=0.02)


@pytest.mark.parametrize("name", ["mse", "entropy", "percentile-99.99"])
def test_outliers_do_not_cost_everybody_resolution(name: str) -> None:
    values = np.abs(np.random.default_rng(0).normal(0, 1, 100_000))
    values[0] = 15.0
    low, high = METHODS[name](histogram(values))
    if name == "mse":
        # Rounding n values costs n·h²/(12·255²), clipping the one outlier (15 − h)²: their sum is least at this h.
        assert high == pytest.approx(15 / (1 + len(values) / (12 * 255**2)), rel=0.01)
    else:
        assert high < 12
    assert error(values[1:], low, high) < error(values[1:], *METHODS["min-max"](histogram(values)))


def test_the_mse_method_is_no_worse_than_any_other() -> None:
    random = np.random.default_rng(1)
    for values in (random.normal(0, 1, 50_000), random.laplace(0, 1, 50_000), random.gamma(1, 1, 50_000)):
        errors = {name: error(values, *method(histogram(values))) for name, method in METHODS.items()}
        assert errors["mse"] <= 1.02 * min(errors.values())


def test_a_constant_tensor_has_a_range() -> None:
    for method in METHODS.values():
        low, high = method(Histogram(0.0, 0.0, np.bincount([0] * 9, minlength=BINS)))
        assert low <= 0 <= high


TABLE = CalibrationTable(
    role="embedder",
    parameters="ab" * 32,
    method="mse",
    tensors={"conv1.conv.relu": (0.0, 3.5), "conv1.conv": (-1.25, 0.1)},
    data="cd" * 32,
    count=200,
    judged={"mse": 0.998},
    pictures=(PictureSignature("01" * 32, "ab" * 8), PictureSignature("02" * 32, "cd" * 8)),
)


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "x.calibration.json"
    thresholds = {"embedder-int8": Threshold(0.31, 1e-3, 4000, "photos")}
    write_tables(file, [TABLE], thresholds)
    assert read_tables(file) == (TABLE,)
    assert read_thresholds(file) == thresholds
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_judged_is_what_the_table_keeps(build, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Conv", ["s", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    weights = {name: rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for name in ("w", "v")}
    weights["scale"] = np.array(0.1, np.float32)
    model = build(nodes, weights, ["n", 4, 8, 8], ["n", 4, 8, 8])
    pictures = CalibrationData([rng.normal(size=(12, 4, 8, 8)).astype(np.float32)], "ab" * 32, 12)
    judged: list[Ranges] = []
    table = calibrate(model, "embedder", pictures, lambda r: judged.append(r) or b"", lambda _: 0.5, quiet=True)
    write_tables(tmp_path / "t.json", [table])
    (kept,) = read_tables(tmp_path / "t.json")
    assert kept == table
    assert len(judged) == len(METHODS)
    assert kept.tensors in judged


def test_a_table_of_other_weights_or_another_graph_is_refused() -> None:
    TABLE.require_fit("ab" * 32, ["conv1.conv"])
    with pytest.raises(InputError, match="other embedder weights"):
        TABLE.require_fit("00" * 32, ["conv1.conv"])
    with pytest.raises(InputError, match="no range for linear"):
        TABLE.require_fit("ab" * 32, ["conv1.conv", "linear"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a calibration table"),
        ("[]", "not a calibration table"),
        ('{"format": "other"}', "not a calibration table"),
        ('{"format": "arcedge-calibration", "version": 99}', "version 99"),
        ('{"format": "arcedge-calibration", "version": 1}', "damaged"),
        ('{"format": "arcedge-calibration", "version": 1, "tables": [{"role": "embedder"}]}', "damaged"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "t.json"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        read_tables(file)


def test_impossible_ranges_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    write_tables(file, [TABLE])
    values = json.loads(file.read_text())
    values["tables"][0]["tensors"]["conv1.conv"] = [2.0, 1.0]
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"conv1\.conv"):
        read_tables(file)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture"):
        list_photos(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        list_photos(tmp_path / "nowhere")


def test_mosaics_show_the_photos_and_are_the_same_every_time(tmp_path: Path) -> None:
    import cv2

    photo = np.full((80, 60, 3), (10, 200, 30), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    (tmp_path / "b.png").write_bytes(b"no picture")
    pictures = mosaics(list_photos(tmp_path), 6)
    again = mosaics(list_photos(tmp_path), 6)
    for picture, same in zip(pictures, again, strict=True):
        assert picture.shape == (320, 320, 3)
        np.testing.assert_array_equal(picture, same)
        assert (picture == photo[0, 0]).all(axis=2).mean() > 0.02


def blank_and_broken(folder: Path, blank: int, broken: int) -> Path:
    """Grey pictures, and files that are no pictures."""
    import cv2

    folder.mkdir()
    for i in range(blank):
        cv2.imwrite(str(folder / f"grey{i}.png"), np.full((64, 64, 3), 128, np.uint8))
    for i in range(broken):
        (folder / f"broken{i}.png").write_bytes(b"no picture")
    return folder


def test_pictures_that_cannot_be_read_are_not_called_faceless(tmp_path: Path) -> None:
    class Blind:
        def find(self, image: object) -> list[object]:
            return []

    for blank, broken, says in (
        (0, 2, r"none of 2 pictures can be read"),
        (3, 0, r"no face found in any of 3 pictures; "),
        (1, 2, r"no face found in any of 1 pictures \(2 more cannot be read\)"),
    ):
        folder = blank_and_broken(tmp_path / f"{blank}-{broken}", blank, broken)
        with pytest.raises(InputError, match=says):
            align_photos(folder, Blind(), quiet=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="none of 2 pictures can be read"):
        mosaics(list_photos(tmp_path / "0-2"), 6)


def test_synthetic_crops_are_pictures_that_differ() -> None:
    crops = synthetic_crops(3)
    assert crops.shape == (3, 112, 112, 3)
    assert crops.dtype == np.uint8
    assert crops.std() > 20
    assert np.abs(crops[0].astype(int) - crops[1]).mean() > 10
