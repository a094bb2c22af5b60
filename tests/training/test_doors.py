"""The original pipeline's two commands, as a user types them."""

from __future__ import annotations

import csv
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PEOPLE = ("chris_evans", "mark_ruffalo", "scarlett_johansson")


def _door(repository: Path, script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repository, check=False)


@pytest.mark.parametrize(("script", "more"), [("train.py", ()), ("test.py", ("-df", "absent"))])
def test_a_folder_that_is_not_there_is_one_line(
    repository: Path,
    tmp_path: Path,
    script: str,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["-dataset", str(tmp_path / "absent"), "-model", str(tmp_path / "out"), *more]
    monkeypatch.setattr("sys.argv", [script, *words])
    with pytest.raises(SystemExit) as ended:  # in this process, which has torch already
        runpy.run_path(str(repository / script), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{script}: ")
    assert "no such folder" in said
    assert len(said.splitlines()) == 1


@pytest.mark.realdata
@pytest.mark.slow
def test_train_and_test_go_through(repository: Path, shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data/avengers/cropped_images"
    for name in PEOPLE:
        (tmp_path / "set" / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:6]:
            (tmp_path / "set" / name / path.name).symlink_to(path)
    trained = _door(repository, "train.py", "-dataset", tmp_path / "set", "-model", tmp_path / "model")
    assert trained.returncode == 0, trained.stderr
    tested = _door(
        repository, "test.py", "-dataset", tmp_path / "set", "-model", tmp_path / "model", "-df", tmp_path / "model"
    )
    assert tested.returncode == 0, tested.stderr
    assert "accuracy by the head: " in tested.stdout
    with (tmp_path / "model" / "test.csv").open() as table, (tmp_path / "model" / "predictions.csv").open() as file:
        wanted, rows = list(csv.DictReader(table)), list(csv.DictReader(file))
    assert {row["Label"] for row in wanted} == set(PEOPLE)
    assert len(rows) == len(wanted)
    assert f"{sum(int(row['right']) for row in rows)} of {len(rows)}" in tested.stdout
