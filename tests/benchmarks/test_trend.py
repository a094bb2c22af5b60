"""Trends on constructed runs: a known slowdown is found where it happened, noise is not called one."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.trend import find_trend, read_runs, write_trend
from edge.errors import InputError


@pytest.fixture
def runs(measured: Path, tmp_path: Path) -> Callable[[list[float]], Path]:
    """Writes a run a day whose FP16 frames take so many times 10 ms, with the noise of one machine."""
    template = json.loads((measured / "report.json").read_text(encoding="utf-8"))

    def write(factors: list[float], cpu: str = "Abacus 1") -> Path:
        for day, factor in enumerate(factors, start=1):
            report: dict[str, Any] = copy.deepcopy(template)
            report["provenance"]["time"] = f"2026-01-{day:02d}T00:00:00Z"
            report["provenance"]["machine"]["cpu"] = cpu
            random = np.random.default_rng(day)
            for label, figures in report["latency"]["variants"].items():
                level = 10.0 * (factor if label == "FP16" else 1.0)
                for name in ("frame", "embed", "detect"):
                    figures["samples_ms"][name] = (level * random.lognormal(0, 0.08, 200)).tolist()
            folder = tmp_path / "runs" / cpu.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"day{day:02d}.json").write_text(json.dumps(report))
        return tmp_path / "runs"

    return write


def test_a_known_slowdown_is_found_in_the_run_where_it_happened(runs: Callable[..., Path]) -> None:
    (series,) = find_trend(read_runs(runs([1.0, 1.0, 1.25, 1.25, 1.0]))).series
    rows = series.rows()
    assert [bool(row["worse"]) for row in rows] == [False, False, True, False, False]
    assert [bool(row["better"]) for row in rows] == [False, False, False, False, True]
    assert all(line.startswith("FP16: ") for line in rows[2]["worse"])
    assert series.labels == ("FP32", "FP16", "INT8")


def test_noise_alone_is_no_step(runs: Callable[..., Path]) -> None:
    (series,) = find_trend(read_runs(runs([1.0] * 12))).series
    assert [row["worse"] + row["better"] for row in series.rows()] == [[]] * 12


def test_runs_of_two_machines_are_two_series_newest_first(runs: Callable[..., Path]) -> None:
    runs([1.0, 1.0], "Abacus 1")
    folder = runs([3.0, 3.0, 3.0], "Abacus 2")
    trend = find_trend(read_runs(folder))
    assert [(one.machine.partition(",")[0], len(one.runs)) for one in trend.series] == [
        ("Abacus 2", 3),
        ("Abacus 1", 2),
    ]
    assert not any(row["worse"] for one in trend.series for row in one.rows())


def test_the_page_is_one_file_with_a_row_a_run(
    runs: Callable[..., Path], bench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs([1.0, 1.5])
    (folder / "notes.json").write_text("[]")  # what is no report is passed over
    assert bench("--trend", folder, "--out", tmp_path / "out" / "trend.html") == 0
    assert "worse: FP16: frame takes" in capsys.readouterr().out
    page = (tmp_path / "out" / "trend.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert page.count("data:image/svg+xml") == 2
    assert page.index("worse in Abacus-1/day02") < page.index("<table>")
    assert page.count('<th scope="row">') == 2


def test_a_folder_without_reports_is_named(bench: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no report of edge bench in it"):
        write_trend(tmp_path, tmp_path / "t.html")
    with pytest.raises(InputError, match="no such folder"):
        bench("--trend", tmp_path / "none", "--out", tmp_path / "t.html")
    with pytest.raises(InputError, match="--bundle is missing"):
        bench("--out", tmp_path / "t")
