"""A precision that embeds as FP32 does costs nothing; one that mixes people up does, and a missed face is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest

from benchmarks.int8 import end_to_end
from edge.bundle import Bundle
from edge.types import Floats


@pytest.fixture(scope="module")
def framed(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same people in pictures large enough that none is enlarged to look for the face."""
    folder = tmp_path_factory.mktemp("framed")
    for file in people.rglob("*.png"):
        target = folder / file.relative_to(people)
        target.parent.mkdir(exist_ok=True)
        picture = cv2.copyMakeBorder(cv2.imread(str(file)), 80, 80, 80, 80, cv2.BORDER_CONSTANT, value=(90, 90, 90))
        cv2.imwrite(str(target), picture)
    return folder


def test_the_same_embedder_costs_nothing_and_a_damaged_one_does(bundle: Path, pairs: Path, framed: Path) -> None:
    figures = end_to_end.compare(Bundle.open(bundle), ["fp16", "int8"], pairs, framed, [0.01])
    assert figures["missed"] == {"fp32": 0, "fp16": 0, "int8": 0}
    same, damaged = (figures[precision]["drops"]["accuracy"]["drop_points"] for precision in ("fp16", "int8"))
    assert same["value"] == 0
    assert figures["fp16"]["cosine"]["least"] > 0.999
    assert damaged["low"] > 0
    assert figures["int8"]["cosine"]["median"] < 0.9


def test_pairs_of_a_face_that_was_missed_are_left_out(
    bundle: Path, pairs: Path, framed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = end_to_end.embed_all

    def half_blind(bundle: Bundle, precision: str, pictures: Sequence[Path]) -> tuple[Floats, Sequence[bool]]:
        rows, found = plain(bundle, precision, pictures)
        return rows, found if precision == "fp32" else [i % 6 > 0 for i in range(len(found))]

    monkeypatch.setattr(end_to_end, "embed_all", half_blind)
    figures = end_to_end.compare(Bundle.open(bundle), ["fp16"], pairs, framed, [0.01])
    assert figures["missed"]["fp16"] == figures["pictures"] // 6
    assert figures["fp16"]["pairs_left_out"] > 0
    assert figures["fp16"]["drops"]["accuracy"]["count"] == 48 - figures["fp16"]["pairs_left_out"]


def test_a_missing_list_is_one_line(
    bundle: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle", str(bundle), "--pairs", str(tmp_path / "no.txt"), "--images", str(people)]
    assert end_to_end.main(words) == 2
    assert capsys.readouterr().err.startswith("end_to_end: ")
