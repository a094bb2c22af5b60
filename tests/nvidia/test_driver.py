"""The driver's answers, without one: a library in its place that says what is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.cuda import driver


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device file that is there and may not be opened, and one that may."""
    nodes = tmp_path / "renderD128", tmp_path / "nvmap"
    for node in nodes:
        node.touch()
    monkeypatch.setattr(os, "access", lambda node, mode: node != nodes[0])
    monkeypatch.setattr(driver, "NODES", nodes)
    return nodes[0]


def test_a_driver_that_does_not_start_names_the_group_of_a_closed_device_file(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on JetPack 6 for a user who is not in `render`."""
    monkeypatch.setattr(driver, "library", lambda: SimpleNamespace(cuInit=lambda flags: 100))
    said = driver.missing_driver()
    group = closed.stat().st_gid
    assert said is not None
    assert said.startswith(f"the NVIDIA driver does not start (cuInit: 100); this user may not open {closed} (group ")
    assert said.endswith(f"{group}); join the group, in a container with docker run --group-add {group}")
    assert "nvmap" not in said
    assert "\n" not in said


def test_device_files_that_are_open_or_not_there_are_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvmap").touch()
    assert driver.closed_nodes((tmp_path / "nvmap", tmp_path / "absent")) == ""
    monkeypatch.setattr(driver, "library", lambda: SimpleNamespace(cuInit=lambda flags: 999))
    monkeypatch.setattr(driver, "closed_nodes", lambda nodes: "")
    assert driver.missing_driver() == (
        "the NVIDIA driver does not start (cuInit: 999); see nvidia-smi, and the container's GPU options"
    )
