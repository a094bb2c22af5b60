"""`edge bench` from end to end, on a bundle whose truth is built in."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import compare
from benchmarks.microbenchmarks import read_microbenchmarks
from benchmarks.report import SCHEMA, render
from benchmarks.subjects import Choice, choose
from edge.bundle import Bundle
from edge.engines import get_engine
from edge.errors import BundleError, InputError
from edge.signatures import sign_picture, to_entry

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def report(measured: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((measured / "report.json").read_text(encoding="utf-8"))
    return values


def test_the_report_keeps_to_its_published_schema(report: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(report)] == []
    broken = copy.deepcopy(report)
    broken["latency"]["variants"]["FP32"]["frame"]["wall_ms"]["p50"] = "fast"
    assert not validator.is_valid(broken)


def test_the_quick_variant_is_found_quick_and_the_same(report: dict[str, Any]) -> None:
    figures = report["latency"]["variants"]["FP16"]["speedup"]["embed"]
    assert figures["low"] > 2.0
    assert report["accuracy"]["drift"]["variants"]["FP16"]["minimum"] > 0.9999
    verdict = next(verdict for verdict in report["verdicts"] if verdict["variant"] == "FP16")
    assert verdict["loss_points"] == {"value": 0.0, "low": 0.0, "high": 0.0, "level": 0.95}
    pairs = report["accuracy"]["pairs"]["variants"]["FP16"]["against_baseline"]["mcnemar"]
    assert verdict["notes"] == []
    assert pairs == {"only_first": 0, "only_second": 0, "p": 1.0}


def test_the_damaged_variant_is_found_out(report: dict[str, Any]) -> None:
    identities = report["accuracy"]["identities"]["variants"]
    assert identities["FP32"]["rank_one"]["hits"] == identities["FP32"]["rank_one"]["count"] == 72
    assert identities["INT8"]["against_baseline"]["rank_one_loss"]["low"] > 0.5
    assert identities["INT8"]["against_baseline"]["rank_one_mcnemar"]["p"] < 0.01
    assert report["accuracy"]["drift"]["variants"]["INT8"]["median"]["value"] < 0.95
    verdict = next(verdict for verdict in report["verdicts"] if verdict["variant"] == "INT8")
    assert verdict["decision"] in ("loses too much", "cannot tell")
    assert any(note.startswith("TAR at FAR 0.01: it loses") for note in verdict["notes"])
    worst = report["accuracy"]["identities"]["errors_by_identity"]["worst"][0]["wrong"]
    assert worst["INT8"] > worst["FP32"] == 0


def test_a_far_the_pairs_cannot_show_is_refused(report: dict[str, Any]) -> None:
    rows = report["accuracy"]["pairs"]["variants"]["FP32"]["tar_at_far"]
    assert [row["tar"] for row in rows] == [None] * 3
    assert "24 impostor pairs: a FAR below 4.2e-02 cannot be read off" in rows[0]["refusal"]
    all_pairs = report["accuracy"]["identities"]
    assert (all_pairs["genuine"], all_pairs["impostor"]) == (72, 2484)
    shown = {row["far"]: row["tar"] for row in all_pairs["variants"]["FP32"]["tar_at_far"]}
    assert shown[1e-2]["count"] == 72
    assert shown[1e-4] is None


def test_every_frame_went_through_every_variant(report: dict[str, Any]) -> None:
    latency = report["latency"]
    for figures in latency["variants"].values():
        assert len(figures["samples_ms"]["frame"]) == latency["rounds"]
        assert figures["frame"]["wall_ms"]["count"] == latency["rounds"]
        total = sum(stage["wall_ms"]["mean"] for stage in figures["stages"].values())
        assert figures["frame"]["wall_ms"]["mean"] == pytest.approx(total, rel=1e-6)
    assert latency["frames"]["with_faces"] == 6


def test_sweeps_cover_threads_streams_and_energy(report: dict[str, Any]) -> None:
    latency = report["latency"]
    assert latency["batches"]["sizes"] == [1, 2, 4, 8, 16, 32, 64]
    for label in ("FP32", "FP16", "INT8"):
        threads = latency["threads_sweep"]["rows"][label]
        assert [row["threads"] for row in threads] == latency["threads_sweep"]["counts"]
        assert threads[0]["times_faster"]["value"] == 1.0
        streams = latency["streams"]["rows"][label]
        assert [row["streams"] for row in streams][:2] == [1, 2]
        assert streams[0]["times_one"]["value"] == 1.0
    # One stream does about as many frames a second as a frame takes; FP32's detour shows there too.
    quick, slow = (latency["streams"]["rows"][label][0]["frames_a_second"]["value"] for label in ("FP16", "FP32"))
    assert quick > 1.5 * slow
    energy = latency["energy"]
    assert energy["measured"] or energy["reason"].startswith("not measured: RAPL: ")


def test_memory_of_a_variant_is_its_own_processes(report: dict[str, Any]) -> None:
    for figures in report["latency"]["memory_mib"].values():
        assert 0 < figures["models"] < 100
        assert figures["process"] < figures["peak"] < 400


def test_the_page_is_one_file_and_says_the_verdict_first(measured: Path, report: dict[str, Any]) -> None:
    page = (measured / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "@import" not in page
    for verdict in report["verdicts"]:
        assert page.index(verdict["sentence"].replace("'", "&#39;")) < page.index("<table>")
    assert page.count("data:image/svg+xml") >= 5  # no curve of errors where none, or only chance, is left
    assert "width=device-width" in page


def test_imported_microbenchmarks_stand_in_the_page(report: dict[str, Any], tmp_path: Path) -> None:
    values = {
        "datetime": "2026-01-01T00:00:00",
        "machine_info": {"cpu": {"brand_raw": "Abacus 1"}},
        "benchmarks": [
            {
                "name": "test_align",
                "group": "parts",
                "stats": {"rounds": 40, "median": 0.0021, "iqr": 0.0001, "min": 0.002},
            }
        ],
    }
    (tmp_path / "b.json").write_text(json.dumps(values))
    told = {**report, "microbenchmarks": read_microbenchmarks(tmp_path / "b.json")}
    page = render("report.html.j2", told)
    assert "test_align" in page
    assert "<td>2.1000</td>" in page
    assert "Abacus 1" in page
    assert "Microbenchmarks" not in render("report.html.j2", report)


def test_peers_stand_in_the_page_where_they_are_better_first(report: dict[str, Any]) -> None:
    stage = {
        name: {**dict.fromkeys(("p90", "p95", "p99")), "count": 9, "mean": 2.0, "minimum": 1.0, "p50": figure(2.0)}
        for name in ("wall_ms", "cpu_ms")
    } | {name: figure(0.5) for name in ("times_wall", "times_cpu")}
    told = {
        **report,
        "peers": {
            "described": {"rival": {"version": "rival 1", "runs": "everything", "files": []}},
            "missing": ["not measured: absent: absent is not installed; install it with: pip install absent"],
            "latency": {
                "rounds": 9,
                "warm_up": 0,
                "settled": True,
                "lines": {"FP32": {"detect": stage, "embed": stage, "frame": stage}, "rival": {"detect": stage}},
            },
            "pairs": None,
            "sentences": [{"peer": "rival", "better": ["detection takes 2.00 times less"], "worse": ["z"], "open": []}],
        },
    }
    assert jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).is_valid(told)
    page = render("report.html.j2", told, plots=True)
    assert page.index("<b>Better:</b> detection takes 2.00 times less.") < page.index("<b>Worse:</b> z.")
    assert "install it with: pip install absent" in page
    assert "Processor time of a frame" in page
    text = render("report.md.j2", told)
    assert "- **rival** (rival 1). Better: detection takes 2.00 times less. Worse: z." in text


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value, "level": 0.95}


def test_the_markdown_holds_the_figures(measured: Path, report: dict[str, Any]) -> None:
    text = (measured / "report.md").read_text(encoding="utf-8")
    assert report["verdicts"][0]["sentence"] in text
    row = next(line for line in text.splitlines() if line.startswith("| Identities, rank-1"))
    assert "100.00" in row
    assert "72 of 72" in row
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {6}


def test_names_are_shown_in_markdown_and_are_no_markup(report: dict[str, Any]) -> None:
    first = report["variants"][0]["label"]
    told = json.loads(json.dumps(report).replace(first, "a*b*_c_|<i>"))
    told["warnings"] = ["[here](http://x) \\ `run`"]
    told["provenance"]["command"] = "edge bench --bundle 'a`b|*c*'"
    text = render("report.md.j2", told)
    assert r"| | a\*b\*\_c\_\|\<i> |" in text
    assert r"- Warning: [here]\(http://x) \\ \`run\`" in text
    assert "- Command: ``edge bench --bundle 'a`b|*c*'``" in text


def test_without_pictures_accuracy_is_not_measured(
    bench: Callable[..., int], bundle: Path, people: Path, tmp_path: Path
) -> None:
    quick = ("--frames", 3, "--seconds", 0.1, "--no-batches", "--no-sweeps")
    bench("--bundle", bundle, "--pictures", people, *quick, "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["accuracy"]["pairs"] is None
    assert {verdict["decision"] for verdict in report["verdicts"]} <= {"not measured", "not worth it"}
    assert report["accuracy"]["drift"]["faces"] == 3
    page = (tmp_path / "report.html").read_text()
    assert "not measured (give --pairs and --images)" in page
    assert page.count("data:image/svg+xml") == 3


def test_a_report_against_itself_is_no_regression(report: dict[str, Any]) -> None:
    found = compare(report, report)
    assert not found.regressed
    assert len(found.unchanged) == 12  # frame, embed, detect and pairs of three variants
    assert found.skipped == ()


def test_a_slower_and_a_worse_variant_are_regressions(report: dict[str, Any]) -> None:
    old = copy.deepcopy(report)
    samples = old["latency"]["variants"]["FP16"]["samples_ms"]
    samples["embed"] = [value / 2 for value in samples["embed"]]
    old["accuracy"]["pairs"]["variants"]["INT8"]["wrong"] = []
    new = copy.deepcopy(report)
    new["accuracy"]["pairs"]["variants"]["INT8"]["wrong"] = list(range(12))
    found = compare(new, old)
    assert found.regressed
    assert len(found.regressions) == 2
    assert found.regressions[0].startswith("FP16: embed takes")
    assert "2.00 times" in found.regressions[0]
    assert "12 newly wrong, 0 newly right" in found.regressions[1]
    assert len(compare(old, new).improvements) == 2


def test_other_machines_and_other_data_are_not_compared(report: dict[str, Any]) -> None:
    old = copy.deepcopy(report)
    old["provenance"]["machine"]["cpu"] = "Abacus 1"
    old["accuracy"]["data_digest"] = "0" * 64
    samples = old["latency"]["variants"]["FP32"]["samples_ms"]
    samples["frame"] = [value / 3 for value in samples["frame"]]
    found = compare(report, old)
    assert not found.regressed
    assert found.unchanged == ()
    assert any("measured on another machine (cpu Abacus 1" in line for line in found.skipped)
    assert any("measured on other pictures" in line for line in found.skipped)


def test_a_regression_ends_with_4(
    bench: Callable[..., int], bundle: Path, people: Path, measured: Path, tmp_path: Path
) -> None:
    arguments = (
        "--bundle",
        bundle,
        "--pictures",
        people,
        "--frames",
        6,
        "--seconds",
        0.2,
        "--no-batches",
        "--no-sweeps",
    )
    old = json.loads((measured / "report.json").read_text())
    for figures in old["latency"]["variants"].values():
        figures["samples_ms"] = {name: [value / 20 for value in row] for name, row in figures["samples_ms"].items()}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert bench(*arguments, "--out", tmp_path / "new", "--compare", tmp_path / "old.json") == 4
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["comparison"]["regressed"]
    assert "Significantly worse" in (tmp_path / "new" / "report.html").read_text()


def test_evaluation_pictures_the_models_have_seen_are_refused(
    bench: Callable[..., int], bundle: Path, people: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "calibration"
    seen.mkdir()
    (seen / "renamed.png").write_bytes((people / "P03" / "P03_0002.png").read_bytes())
    said = (
        r"of 72 evaluation pictures were seen in calibration or training: .*P03/P03_0002\.png \(the same file, in .*cal"
    )
    with pytest.raises(InputError, match=said):
        bench("--bundle", bundle, "--identities", people, "--not-in", seen, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_calibrated_on_an_evaluation_picture_is_refused(
    bench: Callable[..., int], bundle: Path, people: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told.bundle"
    shutil.copytree(bundle, told)
    values = json.loads((told / "bundle.json").read_text())
    signature = sign_picture(people / "P05" / "P05_0001.png")
    values["provenance"] = {"calibration": {"embedder": to_entry([signature])}}
    (told / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"P05/P05_0001\.png \(the same file, in the embedder calibration of told\)"):
        bench("--bundle", told, "--identities", people, "--out", tmp_path / "out")


def test_a_bundle_that_changed_since_export_is_refused(
    bench: Callable[..., int], bundle: Path, people: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.bundle"
    shutil.copytree(bundle, changed)
    data = bytearray((changed / "embedder-int8.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "embedder-int8.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"embedder-int8\.onnx: digest differs from the manifest's"):
        bench("--bundle", changed, "--pictures", people, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_bundles_and_engines_stand_in_one_report(
    bench: Callable[..., int], bundle: Path, people: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    other = tmp_path / "other.bundle"
    shutil.copytree(bundle, other)
    status = bench(
        *("--bundle", bundle, "--bundle", other, "--precision", "fp16", "--engine", "all", "--pictures", people),
        *("--frames", 3, "--seconds", 0.1, "--no-batches", "--no-sweeps", "--out", tmp_path / "out"),
    )
    assert status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    labels = [variant["label"] for variant in report["variants"]]
    # Where the processor has bfloat16, OpenVINO in it is an engine of its own.
    engines = [name for name in ("onnxruntime", "openvino", "openvino-bf16") if get_engine(name).available() is None]
    assert labels == [f"{name} FP16 {engine}" for name in ("toy", "other") for engine in engines]
    assert report["baseline"] == "toy FP16 onnxruntime"
    drift = report["accuracy"]["drift"]["variants"]
    # Each bundle drifts from its own highest precision.
    assert set(drift) == {f"{name} FP16 {engine}" for name in ("toy", "other") for engine in engines[1:]}
    assert drift["other FP16 openvino"]["reference"] == "other FP16 onnxruntime"
    assert drift["other FP16 openvino"]["minimum"] > 0.9999
    assert [one["name"] for one in report["provenance"]["bundles"]] == ["toy", "other"]
    with pytest.raises(InputError, match="two bundles are called toy"):
        bench("--bundle", bundle, "--bundle", bundle, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--pairs", "pairs.txt"], InputError, "--pairs and --images go together"),
        (
            ["--precision", "fp16,int8", "--compare", "none.json"],
            InputError,
            r"none\.json: cannot be read as a report \(No such file or directory\)",
        ),
        (["--import", "none.json"], InputError, "cannot be read"),
        (["--bundle", "none"], BundleError, "no bundle here"),
        (["--video", "none.mp4"], Exception, "no such video"),
        (["--identities", "none"], InputError, "no such folder"),
    ],
)
def test_mistakes_are_named_in_one_line(
    bench: Callable[..., int], bundle: Path, tmp_path: Path, arguments: list[str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        bench("--bundle", bundle, "--out", tmp_path / "out", *arguments)
    assert "\n" not in str(caught.value)


def test_a_precision_the_bundle_lacks_is_named(
    bench: Callable[..., int], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench("--bundle", bundle, "--out", tmp_path, "--precision", "int4")
    assert "int4 is not one of fp32, fp16, int8" in capsys.readouterr().err


def test_what_an_engine_cannot_run_is_not_measured_and_says_why(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    subjects, missing = choose(opened, Choice(engines=("onnxruntime", "tensorrt")))
    assert [subject.label for subject in subjects][:3] == ["FP32 onnxruntime", "FP16 onnxruntime", "INT8 onnxruntime"]
    assert any("tensorrt: not measured: " in line for line in missing)
    with pytest.raises(BundleError, match="no int8 embedder"):
        choose(Bundle.open(bundle_without_int8(bundle)), Choice(precisions=("int8",)))


def bundle_without_int8(bundle: Path) -> Path:
    """A copy of the manifest alone, less its INT8."""
    copy_of = bundle.parent / "less.bundle"
    copy_of.mkdir(exist_ok=True)
    values = json.loads((bundle / "bundle.json").read_text())
    values["variants"] = [variant for variant in values["variants"] if variant["precision"] != "int8"]
    (copy_of / "bundle.json").write_text(json.dumps(values))
    return copy_of


def test_pictures_without_a_face_are_refused(bench: Callable[..., int], bundle: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(InputError, match="no face was found in the 1 frames"):
        bench("--bundle", bundle, "--pictures", tmp_path, "--out", tmp_path / "out")
