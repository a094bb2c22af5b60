"""Indexing on a real Ray cluster of three nodes on this machine; the one at work is killed in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EngineError
from edge.gallery import Binding, Gallery
from edge.indexing import Job, WorkOptions, index, read_jobs
from edge.indexing.ray_engine import RayEngine

pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.slow

PEOPLE, PICTURES = 4, 40


@pytest.fixture
def cluster() -> Iterator[Any]:
    import ray

    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_node_that_is_killed_loses_nothing_and_nothing_counts_twice(
    toy: Any, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr("edge.indexing.indexing.CHUNK", 2)
    monkeypatch.setattr("edge.indexing.indexing.STEP", 8)
    for person in range(PEOPLE):
        for i in range(PICTURES):
            place = (8 + 3 * i, 20 + 2 * person)
            toy.write_scene(tmp_path / "in" / f"p{person}" / f"{i}.png", 240, 200, [(person, *place)])
    (tmp_path / "in" / "p0" / "broken.png").write_bytes(b"broken")
    # The head has no core, so all work is done where it will be lost, and then on the node that comes instead.
    victim = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    jobs = read_jobs(tmp_path / "in")
    done: list[int] = []
    killed_at: list[int] = []

    def kill_one_in_the_middle(pictures: int) -> None:
        done.append(pictures)
        if not killed_at and sum(done) >= 24:
            killed_at.append(sum(done))
            cluster.remove_node(victim, allow_graceful=False)
            cluster.add_node(num_cpus=1)

    with Gallery.create(tmp_path / "g", Binding.of(toy.bundle.select("embedder"))) as gallery:
        engine = RayEngine(WorkOptions(toy.path))
        summary = index(gallery, jobs, engine, kill_one_in_the_middle)
        assert killed_at
        assert killed_at[0] < len(jobs)
        assert (summary.pictures, len(summary.problems)) == (PEOPLE * PICTURES + 1, 1)
        sources = [entry.source for entry in gallery.entries()]
        assert len(sources) == len(set(sources)) == summary.added
        assert summary.added + summary.known + summary.duplicates == PEOPLE * PICTURES
        assert sum(done) == len(jobs)
        assert not victim.any_processes_alive()
        again = index(gallery, jobs, engine)
        assert (again.seen, again.added) == (len(jobs), 0)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "auto"])
def test_a_cluster_that_is_not_there_is_told_at_once(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")  # of a cluster that was killed
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = time.monotonic()
    with pytest.raises(EngineError, match="ray start --head"):
        next(RayEngine(WorkOptions(toy.path), address=address).run([[Job("ada", tmp_path / "ada.png")]]))
    assert time.monotonic() - started < 10
