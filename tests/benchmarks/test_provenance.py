from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks.microbenchmarks import read_microbenchmarks
from benchmarks.provenance import Load, digest_of_files, load_between, load_warning, machine, versions
from edge.errors import InputError


def test_the_machine_is_described_without_naming_it() -> None:
    found = machine()
    assert found["cores"] == os.cpu_count()
    assert found["memory_gib"] > 0.1
    text = json.dumps(found)
    assert os.uname().nodename not in text or len(os.uname().nodename) < 4
    assert str(Path.home()) not in text
    assert versions()["numpy"]


def test_own_work_is_not_other_peoples() -> None:
    before = Load.now()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))
    after = Load.now()
    if before.busy is None or after.busy is None:
        pytest.skip("this system has no /proc/stat")
    assert after.own - before.own > 0.2
    assert 0.0 <= load_between(before, after)["others_share"] <= 1.0


def test_company_during_the_measurement_is_warned_of() -> None:
    before = Load(average=0.1, busy=100.0, total=1000.0, stolen=0.0, own=10.0)
    quiet = Load(average=0.9, busy=110.5, total=1020.0, stolen=0.0, own=20.0)
    busy = Load(average=2.1, busy=118.0, total=1020.0, stolen=1.0, own=20.0)
    assert load_between(before, quiet)["others_share"] == pytest.approx(0.025)
    assert load_warning(load_between(before, quiet)) is None
    found = load_between(before, busy)
    assert found["others_share"] == pytest.approx(0.4)
    assert found["stolen_share"] == pytest.approx(0.05)
    warning = load_warning(found)
    assert warning is not None
    assert "other processes took 40 %" in warning


def test_the_digest_of_a_set_depends_on_names_and_bytes_not_on_order(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    files = [("a", tmp_path / "a"), ("b", tmp_path / "b")]
    digest, each = digest_of_files(files)
    assert digest == digest_of_files(files[::-1])[0]
    assert set(each) == {"a", "b"}
    assert digest != digest_of_files([("a", tmp_path / "b"), ("b", tmp_path / "a")])[0]


def test_pytest_benchmarks_json_is_read(tmp_path: Path) -> None:
    stats = {"rounds": 40, "median": 0.0021, "iqr": 0.0001, "min": 0.002}
    values = {
        "datetime": "2026-01-01T00:00:00",
        "machine_info": {"cpu": {"brand_raw": "Abacus 1"}},
        "benchmarks": [{"name": "test_align", "group": "stage", "stats": stats}],
    }
    (tmp_path / "b.json").write_text(json.dumps(values))
    found = read_microbenchmarks(tmp_path / "b.json")
    assert found["cpu"] == "Abacus 1"
    assert found["rows"][0]["median_ms"] == pytest.approx(2.1)
    (tmp_path / "c.json").write_text('{"benchmarks": [{}]}')
    with pytest.raises(InputError, match="not the JSON of pytest-benchmark"):
        read_microbenchmarks(tmp_path / "c.json")
