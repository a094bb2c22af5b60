"""Who takes which bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.rollout import Canary, Index, Release, publish, read_index
from edge.rollout.canary import device_id, is_canary
from edge.rollout.publish import withdraw

OLD, NEW = Release("a" * 64, 100, False, "old/"), Release("b" * 64, 100, True, "new/")
DEVICES = [f"device-{i}" for i in range(10_000)]


@pytest.mark.parametrize("percent", [0, 1, 5, 50, 100])
def test_the_share_of_canaries_is_the_one_asked_for(percent: float) -> None:
    hits = sum(is_canary(device, NEW.digest, percent) for device in DEVICES)
    share = percent / 100
    # Four standard deviations of a binomial share.
    assert abs(hits / len(DEVICES) - share) <= 4 * (share * (1 - share) / len(DEVICES)) ** 0.5


@given(st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_holds_all_of_a_smaller_one(device: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_canary(device, NEW.digest, small) <= is_canary(device, NEW.digest, large)
    assert is_canary(device, NEW.digest, 100)
    assert not is_canary(device, NEW.digest, 0)


def test_other_bundles_come_to_other_devices_first() -> None:
    first, second = ({device for device in DEVICES if is_canary(device, one.digest, 5)} for one in (OLD, NEW))
    assert len(first & second) < 0.2 * len(first)


def test_a_canary_is_offered_the_new_bundle_first_and_the_old_one_after() -> None:
    index = Index(OLD, Canary(NEW, 5))
    for device in DEVICES[:500]:
        wanted = (NEW, OLD) if is_canary(device, NEW.digest, 5) else (OLD,)
        assert index.releases_for(device) == wanted
    assert Index(None, Canary(NEW, 0)).releases_for("x") == ()


@pytest.mark.parametrize("canary", [None, Canary(NEW, 2.5)])
def test_an_index_comes_back_as_it_was_written(canary: Canary | None, tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_text(json.dumps(Index(OLD, canary).to_dict()))
    assert read_index(str(tmp_path)) == read_index(str(file)) == Index(OLD, canary, str(file))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "else"},
        {"version": 2},
        {"stable": 3},
        {"stable": {**OLD.to_dict(), "digest": "../../etc"}},
        {"stable": {**OLD.to_dict(), "size": 1 << 40}},
        {"stable": {**OLD.to_dict(), "size": True}},
        {"stable": {**OLD.to_dict(), "signed": "yes"}},
        {"stable": {**OLD.to_dict(), "url": ""}},
        {"canary": {**NEW.to_dict(), "percent": 101}},
        {"canary": {**NEW.to_dict(), "percent": float("nan")}},
        {"canary": NEW.to_dict()},
    ],
)
def test_what_is_no_index_is_refused_in_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_text(json.dumps({**Index(OLD).to_dict(), **change}))
    with pytest.raises(InputError, match="no index of a roll-out") as caught:
        read_index(str(file))
    assert "\n" not in str(caught.value)


def test_an_index_comes_over_https_or_from_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="https"):
        read_index("http://fleet.example/index.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_index(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("base", "url", "wanted"),
    [
        ("https://f.example/b/index.json", "x/", "https://f.example/b/x/m.onnx"),
        ("https://f.example/b/index.json", "x", "https://f.example/b/x/m.onnx"),
        ("https://f.example/b/index.json", "https://cdn.example/x/", "https://cdn.example/x/m.onnx"),
        ("/srv/b/index.json", "x/", "/srv/b/x/m.onnx"),
        ("/srv/b/index.json", "https://cdn.example/x", "https://cdn.example/x/m.onnx"),
    ],
)
def test_files_are_found_relative_to_the_index(base: str, url: str, wanted: str) -> None:
    release = Release("a" * 64, 1, False, url)
    assert Index(release, None, base).address(release, "m.onnx") == wanted


def test_publishing_goes_from_canary_to_all_and_back(make: Any, tmp_path: Path) -> None:
    one, two, www = make(tmp_path / "one"), make(tmp_path / "two", 10), tmp_path / "www"
    publish(one, www)
    publish(two, www, 5)
    index = read_index(str(www))
    assert index.stable is not None
    assert index.canary is not None
    assert (index.stable.digest, index.canary.release.digest) == (one.digest(), two.digest())
    with pytest.raises(InputError, match="for all devices already"):
        publish(one, www, 5)
    publish(two, www, 20)
    publish(two, www)
    index = read_index(str(www))
    assert (index.stable.digest, index.canary) == (two.digest(), None)
    publish(one, www)
    assert read_index(str(www)).stable.digest == one.digest()
    with pytest.raises(InputError, match="no canary to withdraw"):
        withdraw(www)
    publish(two, www, 5)
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        withdraw(www / "index.json")
    withdraw(www)
    assert read_index(str(www)).canary is None
    for bundle in (one, two):
        there = {path.name: path.read_bytes() for path in (www / bundle.digest()).iterdir()}
        assert there == {path.name: path.read_bytes() for path in bundle.path.iterdir()}


def test_a_device_has_the_id_it_was_given_or_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edge.rollout.canary.MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.delenv("ARCEDGE_DEVICE_ID", raising=False)
    with pytest.raises(InputError, match="--device-id"):
        device_id()
    (tmp_path / "machine-id").write_text("abc\n")
    assert device_id() == "abc"
    monkeypatch.setenv("ARCEDGE_DEVICE_ID", "def")
    assert device_id() == "def"
    assert device_id("given") == "given"
