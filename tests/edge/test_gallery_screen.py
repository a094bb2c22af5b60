from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engines import SessionOptions, open_session
from edge.gallery import Binding, Gallery, Loose, NewEntry, Snapshot, screen
from edge.gallery.product import product_model
from edge.gallery.screen import Screen, block_shape, build_screen, candidates
from edge.gallery.screen_file import SCREEN_NAME, read_screen, write_screen
from edge.gallery.vectors import Matrix
from edge.matching import nearest
from edge.types import Floats

NOBODY_OUT = np.zeros(0, np.intp)


def normalised(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def people(count: int, size: int, seed: int, decay: float = 0.0) -> Floats:
    """(count, size) unit rows; with a decay their energy lies in few directions, as that of a real embedder does."""
    random = np.random.default_rng(seed)
    scale = np.exp(-decay * np.arange(size)).astype(np.float32)
    turned, _ = np.linalg.qr(np.random.default_rng(99).normal(size=(size, size)))
    return normalised((random.normal(size=(count, size)).astype(np.float32) * scale) @ turned.astype(np.float32))


def test_the_product_is_a_valid_model_and_multiplies_exactly() -> None:
    model = onnx.load_from_string(product_model())
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("MatMulInteger", ["probe", "rows"], ["sums"])
    random = np.random.default_rng(0)
    # The greatest values a probe and a row can have: where an engine saturates, it shows.
    probe = random.choice(np.array([1, 127], np.uint8), (1, 512))
    rows = random.choice(np.array([-127, 127], np.int8), (3, 512, 64))
    with open_session(product_model(), "onnxruntime", SessionOptions()) as session:
        sums = session.run({"probe": probe, "rows": rows})["sums"]
    np.testing.assert_array_equal(sums, probe.astype(np.int32) @ rows.astype(np.int32))


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 400),
    size=st.sampled_from([4, 33, 128]),
    decay=st.sampled_from([0.0, 0.05, 0.3]),
    noise=st.sampled_from([0.0, 0.3, 3.0]),
    block=st.sampled_from([64, 192, 1 << 18]),
    piece=st.sampled_from([50, 4096]),
)
@settings(max_examples=80, deadline=None)
def test_a_score_is_never_further_off_than_the_bound_says(
    seed: int, count: int, size: int, decay: float, noise: float, block: int, piece: int
) -> None:
    vectors = people(count, size, seed, decay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "BLOCK", block)
        patch.setattr(screen, "PIECE", piece)
        built = build_screen(vectors)
        assert built.blocks.shape == (-(-count // block), len(built.axes), block_shape(count)[1])
    random = np.random.default_rng(seed)
    for probe in normalised(vectors[:4] + noise * random.normal(size=(min(4, count), size)).astype(np.float32)):
        approximate, slack = built.scores(probe)
        exact = vectors.astype(np.float64) @ probe.astype(np.float64)
        assert np.abs(approximate - exact).max() <= slack
        picked = candidates(built, probe, NOBODY_OUT)
        assert picked is None or exact.argmax() in picked


class Scores:
    """A screen that scores as told, and says how far each score may be off."""

    def __init__(self, scores: list[float], slack: float) -> None:
        self._told = np.array(scores, np.float32), slack

    def scores(self, probe: Floats) -> tuple[Floats, float]:
        return self._told


def test_every_row_that_may_be_nearest_is_a_candidate() -> None:
    """The best score may be too high and another too low, each by all that it may be off."""
    found = candidates(cast(Screen, Scores([0.5, 0.9, 0.71, 0.69], 0.1)), np.zeros(4, np.float32), NOBODY_OUT)
    assert found is not None
    assert found.tolist() == [1, 2]


@given(count=st.integers(1, 5_000_000))
def test_blocks_are_as_few_as_may_be_and_hold_every_row_and_hardly_more(count: int) -> None:
    number, length = block_shape(count)
    assert length <= screen.BLOCK
    assert length % screen.LANES == 0
    assert (number - 1) * screen.BLOCK < count <= number * length < count + number * screen.LANES


@pytest.mark.parametrize("block", [4096, 1 << 18])
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_the_nearest_of_many_is_that_of_the_plain_search(
    decay: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "BLOCK", block)
    count, size = 30_000, 128
    vectors = people(count, size, 1, decay)
    random = np.random.default_rng(2)
    known = vectors[random.integers(0, count, 150)] + 0.06 * random.normal(size=(150, size)).astype(np.float32)
    probes = np.concatenate([normalised(known), people(150, size, 3, decay)])
    names = tuple(f"p{i}" for i in range(count // 3))
    starts = np.arange(0, count, 3)
    plain = Snapshot(names, vectors, starts, 1)
    screened = Snapshot(names, vectors, starts, 1, screen=build_screen(vectors))
    assert screened.screen is not None
    expected, found = nearest(plain, probes), nearest(screened, probes)
    np.testing.assert_array_equal(found.places, expected.places)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-6)
    sizes = [len(picked) for probe in probes if (picked := candidates(screened.screen, probe, NOBODY_OUT)) is not None]
    assert np.median(sizes) < 0.01 * count  # else it is right, but no quicker


def test_few_axes_are_kept_where_few_hold_the_energy() -> None:
    assert len(build_screen(people(3000, 256, 0, decay=0.1)).axes) < 64
    assert len(build_screen(people(3000, 256, 0)).axes) == 256


def test_a_gallery_of_one_face_over_and_over_is_searched_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "CANDIDATES", 0.02)
    same = np.repeat(people(1, 32, 0), 20_000, axis=0)
    same[12_345] = people(1, 32, 1)
    built = build_screen(same)
    assert candidates(built, same[0], NOBODY_OUT) is None
    snapshot = Snapshot(("twins", "one", "more"), same, np.array([0, 12_345, 12_346]), 1, screen=built)
    assert nearest(snapshot, same[12_345:12_346]).places.tolist() == [1]
    assert nearest(snapshot, same[:1]).places.tolist() == [0]


def test_who_is_left_out_is_left_out_of_the_screen_too() -> None:
    vectors = people(5000, 64, 4)
    names = tuple(str(i) for i in range(5000))
    negatives = Loose(vectors[7:8], np.array([8], np.intp))
    snapshot = Snapshot(names, vectors, np.arange(5000), 1, negatives=negatives, screen=build_screen(vectors))
    scores = vectors @ vectors[7]
    order = np.argsort(-scores)
    assert nearest(snapshot, vectors[7:8]).places[0] == 7
    assert nearest(snapshot, vectors[7:8], besides=7).places[0] == next(p for p in order if p not in (7, 8))


def written(path: Path) -> tuple[Screen, Matrix]:
    vectors = people(5000, 64, 1, 0.05)
    matrix = Matrix(vectors, np.arange(5000), 5000, b"d" * 16)
    built = build_screen(vectors)
    write_screen(path / SCREEN_NAME, built, matrix)
    return built, matrix


def test_a_screen_comes_back_from_its_file(tmp_path: Path) -> None:
    built, matrix = written(tmp_path)
    found = read_screen(tmp_path / SCREEN_NAME, matrix)
    assert found is not None
    for name in ("axes", "blocks", "scale", "offset"):
        np.testing.assert_array_equal(getattr(found, name), getattr(built, name))
    assert (found.rounding, found.left_out) == (built.rounding, built.left_out)
    assert isinstance(found.blocks.base, np.memmap) or isinstance(found.blocks.base.base, np.memmap)


def test_a_screen_in_blocks_of_another_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(screen, "BLOCK", 1024)
        built, matrix = written(tmp_path)
        assert read_screen(tmp_path / SCREEN_NAME, matrix) is not None
    assert len(built.blocks) == 5
    assert read_screen(tmp_path / SCREEN_NAME, matrix) is None


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "missing", "of another matrix"])
def test_a_screen_that_is_not_of_this_matrix_is_never_used(tmp_path: Path, damage: str) -> None:
    _, matrix = written(tmp_path)
    file = tmp_path / SCREEN_NAME
    data = bytearray(file.read_bytes())
    if damage == "bit":
        data[-100] ^= 1
    elif damage == "short":
        del data[-1:]
    elif damage == "empty":
        data.clear()
    elif damage == "of another matrix":
        matrix = Matrix(matrix.vectors, matrix.owners, matrix.last, b"e" * 16)
    file.unlink() if damage == "missing" else file.write_bytes(data)
    assert read_screen(file, matrix) is None


def test_a_large_gallery_keeps_a_screen_and_a_forgotten_person_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.gallery.copies.SCREEN_FROM", 100)
    vectors = people(200, 64, 5)
    with Gallery.create(tmp_path / "g", Binding("c" * 64, "a" * 64, "embedder-fp32", 64)) as gallery:
        gallery.add_entries([NewEntry(f"p{i}", row, "x") for i, row in enumerate(vectors)])
        assert gallery.snapshot().screen is not None
        assert nearest(gallery.snapshot(), vectors[17:18]).places[0] == gallery.snapshot().place_of("p17")
        late = people(1, 64, 6)
        gallery.add("late", late, ["x"])
        snapshot = gallery.snapshot()
        assert snapshot.names[nearest(snapshot, late).places[0]] == "late"
        before = (gallery.path / SCREEN_NAME).read_bytes()
        gallery.forget("p17")
        assert not (gallery.path / SCREEN_NAME).exists()
        snapshot = gallery.snapshot()
        assert snapshot.place_of("p17") is None
        assert nearest(snapshot, vectors[17:18]).similarities[0] < 0.9
        assert (gallery.path / SCREEN_NAME).read_bytes() != before
