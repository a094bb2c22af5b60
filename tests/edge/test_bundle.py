from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.bundle import Bundle
from edge.errors import BundleError
from edge.manifest import Manifest


def edit(path: Path, change: Any) -> None:
    file = path / "bundle.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_models_come_back_as_they_were_written(own_bundle: Path, toy_models: dict[str, bytes]) -> None:
    bundle = Bundle.open(own_bundle)
    for role in ("detector", "embedder"):
        assert bundle.load(bundle.select(role)) == toy_models[role]
    assert Manifest.from_dict(bundle.manifest.to_dict()) == bundle.manifest


def test_what_is_not_there_is_said_with_what_is(own_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no int8 embedder; there is fp32"):
        Bundle.open(own_bundle).select("embedder", "int8")
    with pytest.raises(BundleError, match="no bundle here"):
        Bundle.open(tmp_path)
    edit(own_bundle, lambda values: values["variants"].pop(0))
    with pytest.raises(BundleError, match="holds no detector"):
        Bundle.open(own_bundle).select("detector")


@pytest.mark.parametrize("kind", ["bit", "short", "long", "missing", "link", "link outside", "folder link"])
def test_a_model_that_is_not_the_exported_one_is_never_loaded(own_bundle: Path, tmp_path: Path, kind: str) -> None:
    file = own_bundle / "embedder.onnx"
    data = bytearray(file.read_bytes())
    if kind == "bit":
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    elif kind == "short":
        file.write_bytes(data[:-1])
    elif kind == "long":
        file.write_bytes(data + b"\0")
    elif kind == "missing":
        file.unlink()
    elif kind == "folder link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "e.onnx").write_bytes(data)
        (own_bundle / "sub").symlink_to(tmp_path / "elsewhere")
        edit(own_bundle, lambda values: values["variants"][1].update(file="sub/e.onnx"))
    else:
        target = (tmp_path if kind == "link outside" else own_bundle) / "real.onnx"
        file.rename(target)
        file.symlink_to(target)
    bundle = Bundle.open(own_bundle)
    with pytest.raises(BundleError, match="export it again"):
        bundle.load(bundle.select("embedder"))


@pytest.mark.parametrize("file", ["../x.onnx", "/etc/passwd", "a/../../x", "..\\x", "", "."])
def test_a_manifest_cannot_point_outside(own_bundle: Path, file: str) -> None:
    edit(own_bundle, lambda values: values["variants"][1].update(file=file))
    with pytest.raises(BundleError):
        Bundle.open(own_bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(format="zip"),
        lambda v: v.update(version=2),
        lambda v: v.update(variants=[]),
        lambda v: v.update(variants=None),
        lambda v: v.update(variants=[1]),
        lambda v: v["variants"].append(v["variants"][0]),
        lambda v: v["variants"][1].update(sha256="0" * 63),
        lambda v: v["variants"][1].update(size=0),
        lambda v: v["variants"][1].update(precision="int3"),
        lambda v: v["variants"][1].update(role="detector"),
        lambda v: v["variants"][1].update(surprise=1),
        lambda v: v["variants"][1].pop("contract"),
        lambda v: v["variants"][1]["contract"].update(std=[0, 1, 1]),
        lambda v: v["variants"][1]["threshold"].update(similarity=1.5),
        lambda v: v["variants"][1]["threshold"].update(similarity=float("nan")),
        lambda v: v["variants"][1]["threshold"].update(far="0.1"),
        lambda v: v["variants"][1]["threshold"].update(similarity=True),
        lambda v: v["variants"][1]["threshold"].update(pairs=float("nan")),
        lambda v: v["variants"][1]["threshold"].update(pairs=1.5),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_in_one_line(own_bundle: Path, change: Any) -> None:
    edit(own_bundle, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(own_bundle)
    assert "\n" not in str(caught.value)


DETECTION_SCORE = {
    "score": 0.48,
    "reference": 0.5,
    "low": 0.47,
    "high": 0.49,
    "faces": 900,
    "found": 880,
    "pictures": 300,
    "source": "test",
}


def test_a_detection_score_comes_back(own_bundle: Path) -> None:
    edit(own_bundle, lambda values: values["variants"][0].update(detection_score=DETECTION_SCORE))
    found = Bundle.open(own_bundle).select("detector").detection_score
    assert found is not None
    assert asdict(found) == DETECTION_SCORE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.5", None, -1, [1]])
@pytest.mark.parametrize("name", [name for name in DETECTION_SCORE if name != "source"])
def test_a_detection_score_of_what_is_no_number_is_refused_in_one_line(
    own_bundle: Path, name: str, value: object
) -> None:
    edit(own_bundle, lambda values: values["variants"][0].update(detection_score={**DETECTION_SCORE, name: value}))
    with pytest.raises(BundleError) as caught:
        Bundle.open(own_bundle)
    assert "\n" not in str(caught.value)
    assert "export it again" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff\xfe", '{"format": "arcedge-bundle"}'])
def test_a_manifest_that_is_no_manifest_is_refused(own_bundle: Path, text: str) -> None:
    (own_bundle / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError):
        Bundle.open(own_bundle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_in_any_place_is_a_bundle_or_one_clear_error(toy: Any, data: st.DataObject) -> None:
    values = json.loads((toy.path / "bundle.json").read_text())
    place: Any = values
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    said = ""
    try:
        assert Manifest.from_dict(values).variants
    except BundleError as error:
        said = str(error)
    assert "\n" not in said
