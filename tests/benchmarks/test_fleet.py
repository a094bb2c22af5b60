"""The paper plan: its arithmetic against hand-made figures, and docs/scale.md against the script."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fleet import COST, MESSAGES, Assumed, Measured, as_markdown, main, plan
from edge.errors import InputError

ROUND = Measured(
    frame_ms=10, face_ms=5, event_bytes=250, line_bytes=500, looks_a_visit=10, metrics_bytes=10_000,
    metrics_samples=100, bundle_bytes=1e7, gallery_bytes=4000,
)  # fmt: skip
SMALL = Assumed(
    cameras=3600, cameras_a_device=4, fps=20, visits=10, visit_seconds=5, busy_hours=10, scrape_seconds=10, changes=100,
    price_device=100, watts=10, price_kwh=0.5, price_gb=0.1, price_core_hour=0.1, years=2,
)  # fmt: skip


def values(measured: Measured = ROUND, assumed: Assumed = SMALL) -> dict[tuple[str, str], float]:
    return {(row.what, row.unit): row.value for row in plan(measured, assumed)}


def test_the_arithmetic_is_that_of_paper() -> None:
    found = values()
    assert found["devices", ""] == 900
    assert found["cores a camera, five faces always in view", "cores"] == pytest.approx(0.2)
    assert found["cores a device", "cores"] == pytest.approx(0.8)
    # 3,600 cameras × 10 visits an hour are 10 visits a second, each an event at its beginning and end.
    assert found["visit events, busy hour", "/s"] == 20
    assert found["visit events, busy hour", "Mbit/s"] == pytest.approx(20 * 250 * 8 / 1e6)
    assert found["visit events, a day", "million"] == pytest.approx(0.72)
    assert found["if every face of every frame were sent", "/s"] == 1000
    assert found["Prometheus samples", "/s"] == 9000
    assert found["Prometheus pages", "Mbit/s"] == pytest.approx(7.2)
    assert found["gallery changes, a day", "GB"] == pytest.approx(0.36)
    assert found["a bundle to all", "GB"] == pytest.approx(9)
    assert found["a bundle to all, within an hour", "Mbit/s"] == pytest.approx(20)
    assert found["index requests, one a device and hour", "/s"] == 0.25
    assert found["frames to a central detector", "Gbit/s"] == pytest.approx(3600 * 20 * 640 * 384 * 3 * 8 / 1e9)
    assert found["faces to a central embedder, busy hour", "/s"] == 100
    assert found["cores that embed them, INT8", "cores"] == pytest.approx(0.5)
    assert found["GPUs that embed them", ""] == pytest.approx(0.001)
    assert found["devices, once", ""] == 90_000
    assert found["power, a year", ""] == pytest.approx(900 * 0.01 * 8760 * 0.5)
    # Events 5 kB/s for 10 hours a day, pages 900 kB/s always, gallery 0.36 GB a day; 0.1 a GB.
    traffic = (5e3 * 3600 * 3650 + 9e5 * 8760 * 3600 + 0.36e9 * 365) / 1e9 * 0.1
    assert found["events, metrics, gallery, a year", ""] == pytest.approx(traffic)
    yearly = 45_000 + 900 * 0.01 * 8760 * 0.5 + traffic
    assert found["a camera and year, all on devices", ""] == pytest.approx(yearly / 3600)
    assert found["embedding in the centre instead: cores, a year", ""] == pytest.approx(0.5 * 8760 * 0.1)


@given(st.floats(1, 1e6), st.floats(1.5, 10))
def test_all_but_shares_grow_with_the_fleet(cameras: float, times: float) -> None:
    one, more = (values(assumed=replace(SMALL, cameras=count)) for count in (cameras, cameras * times))
    for key, value in one.items():
        fixed = key[0].startswith(("cores a ", "a camera and year"))
        assert more[key] == pytest.approx(value if fixed else value * times)


def test_the_page_shows_what_the_script_prints(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    page = (repository / "docs" / "scale.md").read_text(encoding="utf-8")
    assert page.partition("<!-- fleet -->\n")[2].partition("<!-- /fleet -->")[0] == printed
    assert main(["--cameras", "20000"]) == 0
    assert capsys.readouterr().out != printed


def test_the_measured_figures_are_those_of_the_kept_results(repository: Path) -> None:
    results = repository / "benchmarks" / "results"
    measured = Measured.read(results)
    messages = json.loads((results / MESSAGES).read_text())
    assert measured.looks_a_visit == messages["looks"] / messages["visits"]
    assert (
        measured.frame_ms
        == json.loads((results / COST).read_text())["int8"]["cpu_ms_a_frame"]["5 faces"]["tracked"]["median"]
    )
    assert f"{measured.event_bytes:g} B" in as_markdown(plan(measured, Assumed()))


@pytest.mark.parametrize("arguments", [["--cameras", "0"], ["--visits", "nan"], ["--results", "nowhere"]])
def test_what_makes_no_sense_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_results_that_lack_a_figure_are_named(tmp_path: Path) -> None:
    for name in (COST, MESSAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="measure again"):
        Measured.read(tmp_path)
