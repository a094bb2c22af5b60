"""The benchmarks of central galleries and of indexing, on what is small enough to know the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import indexing
from benchmarks.central import changes, made, search
from benchmarks.vectors import SIZE, faces
from edge.gallery import MilvusPlace, parse_place


def test_made_vectors_are_unit_rows_with_their_energy_on_the_axes_asked_for() -> None:
    rows = faces(2000, 128, 0)
    assert rows.shape == (2000, SIZE)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    energy = np.sort(np.linalg.eigvalsh(rows.T @ rows))[::-1]
    assert energy[:128].sum() / energy.sum() > 0.995
    assert energy[0] / energy[127] < 3
    np.testing.assert_allclose(rows[:500], faces(500, 128, 0), atol=1e-6)


def test_search_and_pull_are_measured_on_a_gallery_whose_answer_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    monkeypatch.setattr(changes, "CHANGES", 20)
    place = parse_place(f"milvus:{tmp_path / 'g.db'}")
    assert isinstance(place, MilvusPlace)
    assert made.fill(place, 400)["vectors"] == 400
    truth = search.find_truth(400, 10)
    rows = faces(400, made.AXES, made.SEED)
    of_site = [n for n in range(400) if made.site_of(n) == made.SITE]
    of_site_best = (truth.probes @ rows[of_site].T).argmax(axis=1)
    np.testing.assert_array_equal(truth.nearest[:, 0], (truth.probes @ rows.T).argmax(axis=1))
    np.testing.assert_array_equal(truth.of_site[:, 0], np.take(of_site, of_site_best))
    found = search.measure_search(place, truth)
    assert found.pop("peak_memory_mb") > 10
    # So few vectors are searched exactly.
    assert {name: (each["vectors"], each["recall_at_10"]) for name, each in found.items()} == {
        "all sites": (400, 1.0),
        "one site of ten": (40, 1.0),
    }
    assert all(each["first_is_the_nearest"] == 10 for each in found.values())
    copied = search.measure_copy(place, tmp_path, truth)
    assert copied["first copy"]["records"] == 400 + 100
    assert copied["first copy of one site of ten"]["records"] == 40 + 10
    assert {each["records"] for each in copied["nothing has changed"]} == {0}
    assert (copied["search"]["vectors"], copied["search"]["first_is_the_nearest"]) == (400, 10)
    pulled = changes.measure_pull(place, tmp_path)
    assert [run["records"] for run in pulled["added"]] == [2 * 20, 2]
    assert [run["records"] for run in pulled["half added, half renamed"]] == [3 * 10, 2]
    assert pulled["forgotten"][0]["records"] == 4 + 1


BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, __file__, "child"]) if len(sys.argv) == 1 else None
ends = time.process_time() + 0.5
while time.process_time() < ends:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def test_the_processor_time_of_a_process_and_of_those_it_started_is_counted(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        assert [busy.stdout.readline() for _ in range(2)] == [b"done\n"] * 2
        used = indexing._seconds_of({busy.pid})
    assert len(used) == 2
    assert 0.9 < sum(used.values()) < 1.6
    assert os.getpid() not in {pid for pid, _ in used}


def test_the_difference_of_few_and_all_is_what_a_picture_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(way: str, bundle: Path, pictures: Path, first: int | None) -> dict[str, Any]:
        count = 116 if first is None else first
        return {"pictures": count, "seconds": 5 + count / 20, "cpu_seconds": 2 + count / 40}

    monkeypatch.setattr(indexing, "measure_one", measured)
    both = indexing.measure_both("loop", Path(), Path())
    assert both["pictures_a_second"] == pytest.approx(20)
    assert both["cpu_ms_a_picture"] == pytest.approx(25)
    assert both["start_cpu_seconds"] == pytest.approx(2.4)
    summary = indexing.summarise([both, {**both, "cpu_ms_a_picture": 31.0}, {**both, "cpu_ms_a_picture": 26.0}])
    assert summary["cpu_ms_a_picture"] == {"median": 26.0, "least": 25.0, "most": 31.0}
