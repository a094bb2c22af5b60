from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.readme import README, bench_block, filled, newest, weights_block, write_readme
from edge.errors import InputError


def test_readme_says_what_the_kept_results_and_the_cards_say() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == filled(text), "run: python -m benchmarks.readme"


def test_a_figure_changed_by_hand_is_put_right_and_the_rest_stays(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    row = next(line for line in bench_block() if line.startswith("Frame, p50"))
    broken = text.replace(row, row.replace(".", ",")).replace("## Install", "## Install it")
    (tmp_path / "README.md").write_text(broken, encoding="utf-8")
    assert write_readme(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text.replace("## Install", "## Install it")
    assert not write_readme(tmp_path / "README.md")


def test_what_the_weights_are_stays_as_readme_words_it() -> None:
    text = README.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| `edge-detector` |"))
    what = row.split("|")[2].strip()
    assert any(what in line for line in weights_block(text))
    with pytest.raises(InputError, match="no row of the weights"):
        weights_block("nothing here")


def test_lost_markers_and_results_are_named(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8").replace("<!-- end of bench -->", "")
    with pytest.raises(InputError, match="markers of the block 'bench' are missing"):
        filled(text)
    with pytest.raises(InputError, match="no kept result ends with -none"):
        newest("none", tmp_path)
