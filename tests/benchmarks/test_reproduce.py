"""The one command that makes the kept results anew says nothing `edge` does not take, and does its steps in order."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import reproduce
from benchmarks.cli import VERB
from benchmarks.reproduce import FOAMLIU, Shared, bench, export_foamliu, export_own, main
from edge.contract import ModelContract
from edge.weights.registry import find_entry
from export.cli import VERB as EXPORT


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    for name in ("data/lfw/pairs.txt", "data/wider/eval/labels.txt", "data/video/street_1080p.mp4", "models/a.onnx"):
        path = tmp_path / "shared" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return Shared(tmp_path / "shared")


def test_every_argument_is_one_the_verbs_take(shared: Shared, tmp_path: Path) -> None:
    for verb, arguments in (
        (EXPORT, export_own(tmp_path / "a.bundle")),
        (EXPORT, export_foamliu(tmp_path / "b.bundle", shared)),
        (VERB, bench(tmp_path / "a.bundle", tmp_path / "out", shared, 5.0, "all")),
    ):
        parser = argparse.ArgumentParser()
        verb.configure(parser)
        parsed = parser.parse_args(arguments[1:])
        assert arguments[0] == verb.name
        assert parsed.out
    assert ModelContract.from_toml(tmp_path / "b.toml") == find_entry(FOAMLIU).contract


def test_steps_come_in_order_and_a_failed_one_ends_it(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(reproduce, "_edge", lambda arguments: steps.append(arguments[0]))
    monkeypatch.setattr(reproduce.publish, "publish", lambda source, name: steps.append(name) or source)
    monkeypatch.setattr(reproduce.readme, "write_readme", lambda: steps.append("readme"))
    assert main(["--data", str(shared.folder), "--build", str(tmp_path / "build")]) == 0
    own = reproduce.readme.RESULT
    assert steps == ["export", "bench", own, "export", "bench", "foamliu-yunet-n", "readme"]
    monkeypatch.undo()
    monkeypatch.setattr(reproduce, "export_own", lambda out: ["export", "--weights", "nobody", "--out", str(out)])
    assert main(["--data", str(shared.folder), "--build", str(tmp_path / "build")]) == 2
    assert "edge export ended with 2; nothing after it was done" in capsys.readouterr().err


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "pairs.txt: missing; CONTRIBUTING.md says" in capsys.readouterr().err
