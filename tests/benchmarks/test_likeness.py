from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.likeness import main


def _run(bundle: Path, people: Path, *more: str) -> int:
    return main(["--bundle", str(bundle), "--identities", str(people), *more])


def test_two_wrong_pictures_vouch_for_each_other_and_only_the_group_tells(
    bundle: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(bundle, people, "--right", "3", "--wrong", "2") == 0
    head, nearest, group = capsys.readouterr().out.splitlines()
    assert head.startswith("24 people, 3 right and 2 wrong pictures each, threshold 0.7000")
    assert nearest.startswith("by the nearest picture")
    assert nearest.count("(0 of 48)") == nearest.count("(0 of 72)") == 1
    assert group.startswith("by the group")
    assert group.count("(48 of 48)") == group.count("(0 of 72)") == 1


def test_one_wrong_picture_is_told_by_both(bundle: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(bundle, people, "--right", "3", "--wrong", "1") == 0
    assert capsys.readouterr().out.count("(24 of 24)") == 2


def test_too_few_pictures_are_one_line(bundle: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(bundle, people) == 2
    assert "two people with 8 pictures" in capsys.readouterr().err
    assert _run(bundle, people, "--wrong", "0") == 2
    assert "at least 2 and 1" in capsys.readouterr().err
