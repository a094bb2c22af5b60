from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.cli.main import main
from edge.gallery import Gallery


def test_the_most_alike_are_named_best_first_and_pictures_without_a_face_are_said(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for person in range(6):
        toy.write_scene(tmp_path / "in" / f"p{person}.png", 200, 200, [(person, 40, 56)])
    probe = toy.write_scene(tmp_path / "probe.png", 200, 200, [(3, 73, 61)])
    empty = toy.write_scene(tmp_path / "empty.png", 200, 200, [])
    gallery, bundle = str(tmp_path / "g"), ["--bundle", str(toy.path)]
    assert main(["enroll", *bundle, "--gallery", gallery, str(tmp_path / "in")]) == 0
    capsys.readouterr()
    find = ["gallery", "find", gallery, *bundle]
    assert main([*find, str(probe), str(empty), "--top", "4", "--json"]) == 0
    said = capsys.readouterr()
    assert "empty.png: no face found" in said.err
    (line,) = said.out.splitlines()
    with FaceAnalyzer(toy.bundle) as analyzer, Gallery.open(tmp_path / "g") as opened:
        image = toy.scene(200, 200, [(3, 73, 61)])
        vector = analyzer.embed(analyzer.align(image, analyzer.detect(image)))[0]
        entries = opened.entries()
    scores = {entry.identity: float(entry.vector @ vector) for entry in entries}
    expected = sorted(scores, key=lambda name: -scores[name])[:4]
    found = json.loads(line)["found"]
    assert [hit["name"] for hit in found] == expected
    assert expected[0] == "p3"
    np.testing.assert_allclose([hit["similarity"] for hit in found], [scores[name] for name in expected], atol=1e-6)
    assert main([*find, str(probe)]) == 0
    assert "p3  (" in capsys.readouterr().out.splitlines()[1]
    assert main([*find, str(empty)]) == 2
    assert "no picture shows one face" in capsys.readouterr().err
