from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.alignment import main, read_people
from edge.errors import InputError

pytestmark = pytest.mark.usefixtures("exports_are_remembered")


def write_people(path: Path, people: int, each: int) -> Path:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as file:
        for person in range(people):
            for number in range(each):
                image = rng.integers(0, 256, (112, 112, 3), np.uint8)
                file.writestr(f"p{person}/{number}.jpg", cv2.imencode(".jpg", image)[1].tobytes())
        file.writestr("notes.txt", "no picture")
    return path


def test_people_are_read_each_up_to_so_many(tmp_path: Path) -> None:
    crops, people = read_people(write_people(tmp_path / "a.zip", 3, 5), 2)
    assert people.tolist() == [0, 0, 1, 1, 2, 2]
    assert {crop.shape for crop in crops} == {(112, 112, 3)}


def test_one_person_or_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of two people"):
        read_people(write_people(tmp_path / "a.zip", 1, 5), 2)
    with pytest.raises(InputError, match="not a zip archive"):
        read_people(tmp_path / "none.zip", 2)


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["alignment", "edge-detector", "--crops", str(tmp_path / "none.zip")])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_noise_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    archive = write_people(tmp_path / "a.zip", 2, 2)
    monkeypatch.setattr("sys.argv", ["alignment", "edge-detector", "--crops", str(archive), "--json"])
    assert main() == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["detector"], row["found"], row["crops"]) == ("edge-detector", 0, 4)
    assert [t["far"] for t in row["tar_at_far"]] == [1e-2, 1e-3, 1e-4]
    assert all(isinstance(t["tar"], str) for t in row["tar_at_far"]), "four impostor pairs show no such rate"


@pytest.mark.realdata
def test_landmarks_nearer_to_the_template_are_worth_more(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = str(shared_data / "data" / "train" / "faces112-pins.zip")
    words = ["alignment", "edge-detector", "edge-detector+edge-landmarker", "--crops", crops, "--most", "2", "--json"]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    default, nearer = json.loads(capsys.readouterr().out)
    assert default["crops"] == nearer["crops"] == 140
    assert min(default["found"], nearer["found"]) >= 137
    assert nearer["tar_at_far"][0]["tar"]["value"] >= default["tar_at_far"][0]["tar"]["value"]
