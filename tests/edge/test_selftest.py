"""A model is opened for work only where this machine computes it as its export did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.cli.main import main
from edge.engines import open_session
from edge.errors import EngineError
from edge.selftest import ENTRY, answers, probes, require_faithful, to_entry


def store_answers(bundle: Path, role: str, *, wrong: bool) -> None:
    """What the model answers on this machine into the bundle, or what no sound engine answers."""
    opened = Bundle.open(bundle)
    variant = opened.select(role, None, "onnxruntime")
    with open_session(opened.load(variant)) as session:
        given = answers(session, probes(variant.contract))
    file = bundle / "bundle.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    entry = next(entry for entry in manifest["variants"] if entry["name"] == variant.name)
    entry.setdefault("measured", {})[ENTRY] = to_entry(given[:, ::-1] if wrong else given, 0.999)
    file.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize("role", ["embedder", "detector"])
def test_what_computes_otherwise_does_no_work(
    toy: Any, own_bundle: Path, role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.write_scene(tmp_path / "people" / "ada.png", 160, 160, [(1, 40, 40)])
    words = ["embed", "--bundle", str(own_bundle), str(tmp_path / "people"), "--out", str(tmp_path / "e.npz")]
    store_answers(own_bundle, role, wrong=False)
    assert main(words) == 0
    (tmp_path / "e.npz").unlink()
    store_answers(own_bundle, role, wrong=True)
    capsys.readouterr()
    assert main(words) == 2
    told = capsys.readouterr().err.strip()
    assert "computes something else than the export" in told
    assert "\n" not in told
    assert not (tmp_path / "e.npz").exists()
    with FaceAnalyzer(Bundle.open(own_bundle), AnalyzerOptions(self_test=False)) as analyzer:
        assert len(analyzer.detect(toy.scene(160, 160, [(1, 40, 40)]))) == 1


def test_an_engine_that_proves_itself_elsewhere_is_not_asked(own_bundle: Path) -> None:
    store_answers(own_bundle, "embedder", wrong=True)
    opened = Bundle.open(own_bundle)
    variant = opened.select("embedder", None, "onnxruntime")
    with open_session(opened.load(variant)) as session:
        require_faithful(session, variant, "openvino-bf16")
        with pytest.raises(EngineError, match="--precision"):
            require_faithful(session, variant, "onnxruntime")
