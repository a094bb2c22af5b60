from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.publish import INDEX, PAGE, RESULTS, figures, index, main, publishable
from benchmarks.report import SCHEMA


def test_the_pages_of_results_are_what_the_files_say() -> None:
    assert (RESULTS / INDEX).read_text(encoding="utf-8") == index(RESULTS), "run: python -m benchmarks.publish"
    assert PAGE.read_text(encoding="utf-8") == figures(RESULTS), "run: python -m benchmarks.publish"


def test_every_kept_result_keeps_to_the_published_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for path in RESULTS.glob("*.json"):
        found = [error.message for error in validator.iter_errors(json.loads(path.read_text(encoding="utf-8")))]
        assert found == [], path.name


def test_a_kept_result_names_no_person_and_no_folder(measured: Path, people: Path, tmp_path: Path) -> None:
    report = json.loads((measured / "report.json").read_text(encoding="utf-8"))
    report["provenance"]["command"] = f"edge bench --identities {people} --out='/srv/somebody/reports/r 1'"
    report["provenance"]["bundle"]["provenance"] = {"embedder": "/srv/somebody/model"}
    named = {row["identity"] for row in report["accuracy"]["identities"]["errors_by_identity"]["worst"]}
    assert named <= {f"P{i:02d}" for i in range(24)}
    assert named
    (tmp_path / "report.json").write_text(json.dumps(report))
    folders = ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]
    assert main([str(tmp_path / "report.json"), "--name", "toy", *folders]) == 0
    (kept,) = (tmp_path / "results").glob("*-toy.json")
    text = kept.read_text(encoding="utf-8")
    assert not any(f'"{name}"' in text for name in named)
    assert str(people.parent) not in text
    assert "/srv" not in text
    assert "edge bench --identities people" in text
    values = json.loads(text)
    assert values["latency"] == report["latency"]
    assert values["accuracy"]["pairs"]["variants"] == report["accuracy"]["pairs"]["variants"]
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert report["verdicts"][0]["sentence"] in page
    assert page == figures(tmp_path / "results")
    assert kept.name in (tmp_path / "results" / INDEX).read_text(encoding="utf-8")
    # Keeping it twice changes nothing.
    assert publishable(values) == values


@pytest.mark.parametrize("name", ["", "LFW", "../x", "a b"])
def test_a_result_needs_a_plain_name(measured: Path, tmp_path: Path, name: str) -> None:
    assert (
        main([str(measured / "report.json"), "--name", name, "--results", str(tmp_path), "--page", str(tmp_path / "p")])
        == 2
    )
    assert not list(tmp_path.glob("*.json"))
