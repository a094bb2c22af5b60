from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.bundle import Bundle
from edge.cli.main import main
from edge.errors import EngineError, InputError
from edge.gallery import Binding, Gallery, Key
from edge.indexing import Job, Result, Summary, WorkOptions, index, read_jobs
from edge.indexing.local import LocalEngine
from edge.indexing.ray_engine import RayEngine
from edge.indexing.work import Worker


class Here:
    """An engine without processes, which may be told to stop in the middle."""

    def __init__(self, options: WorkOptions, stop_after: int | None = None) -> None:
        self._worker = Worker(options)
        self._left = stop_after
        self.done: list[str] = []

    def run(self, chunks: Iterable[Sequence[Job]]) -> Iterator[list[Result]]:
        for chunk in chunks:
            for job in chunk:
                if self._left is not None and len(self.done) == self._left:
                    raise KeyboardInterrupt
                self.done.append(job.path.name)
                yield self._worker([job])


@pytest.fixture
def options(toy: Any) -> WorkOptions:
    return WorkOptions(toy.path)


def test_a_worker_counts_as_faces_what_reaches_the_score_named(toy: Any, photos: Path) -> None:
    job = read_jobs(photos)[:1]
    (found,), (none,) = (Worker(WorkOptions(toy.path, detection_score=score))(job) for score in (0.99, 1.0))
    assert found.vector is not None
    assert none.vector is None
    assert "no face" in str(none.problem)


@pytest.fixture
def gallery(toy: Any, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "g", Binding.of(toy.bundle.select("embedder"))) as made:
        yield made


@pytest.fixture
def photos(toy: Any, tmp_path: Path) -> Path:
    """Two people with three good pictures each."""
    for person, name in ((1, "ada"), (2, "bob")):
        for i in range(3):
            toy.write_scene(tmp_path / "in" / name / f"{name}{i}.png", 200, 200, [(person, 40 + 5 * i, 56)])
    return tmp_path / "in"


def counts(summary: Summary) -> tuple[int, ...]:
    return summary.pictures, summary.seen, summary.added, summary.duplicates, len(summary.problems)


def sources(gallery: Gallery) -> list[str]:
    return sorted(Path(entry.source).name for entry in gallery.entries())


def test_what_is_indexed_is_what_enrolment_would_find(
    toy: Any, gallery: Gallery, options: WorkOptions, photos: Path
) -> None:
    assert counts(index(gallery, read_jobs(photos), Here(options))) == (6, 0, 6, 0, 0)
    with FaceAnalyzer(Bundle.open(toy.path)) as analyzer:
        for person, name in ((1, "ada"), (2, "bob")):
            image = toy.scene(200, 200, [(person, 45, 56)])
            (vector,) = analyzer.embed(analyzer.align(image, analyzer.detect(image)))
            found = {Path(entry.source).name: entry for entry in gallery.entries(name)}[f"{name}1.png"]
            np.testing.assert_allclose(found.vector, vector, atol=1e-6)


def test_bad_pictures_are_listed_and_equal_ones_count_once(
    toy: Any, gallery: Gallery, options: WorkOptions, photos: Path
) -> None:
    shutil.copy(photos / "ada" / "ada0.png", photos / "ada" / "copy.png")
    shutil.copy(photos / "ada" / "ada0.png", photos / "bob" / "not bob.png")
    (photos / "ada" / "broken.png").write_bytes(b"broken")
    toy.write_scene(photos / "bob" / "empty.png", 200, 200, [])
    toy.write_scene(photos / "bob" / "two.png", 300, 200, [(1, 8, 40), (2, 160, 80)])
    (photos / "bob" / "gone.png").symlink_to(photos / "nowhere.png")
    done: list[int] = []
    summary = index(gallery, read_jobs(photos), Here(options), done.append)
    assert counts(summary) == (12, 0, 6, 1, 5)
    assert sum(done) == 12
    problems = {Path(path).name: problem for path, problem in summary.problems}
    assert problems.pop("broken.png").startswith("not a picture")
    assert problems == {
        "empty.png": "no face found",
        "two.png": "2 faces of like size; cut out the one meant",
        "gone.png": "cannot be read (No such file or directory)",
        "not bob.png": "the same picture is of somebody else already",
    }
    assert sources(gallery) == ["ada0.png", "ada1.png", "ada2.png", "bob0.png", "bob1.png", "bob2.png"]


def test_a_second_run_looks_only_at_what_is_new_or_changed(
    toy: Any, gallery: Gallery, options: WorkOptions, photos: Path
) -> None:
    index(gallery, read_jobs(photos), Here(options))
    again = Here(options)
    assert counts(index(gallery, read_jobs(photos), again)) == (6, 6, 0, 0, 0)
    assert again.done == []
    toy.write_scene(photos / "ada" / "new.png", 200, 200, [(1, 70, 70)])
    os.utime(photos / "bob" / "bob1.png", ns=(1, 1))  # touched, and the same inside
    third = Here(options)
    assert counts(index(gallery, read_jobs(photos), third)) == (7, 5, 1, 1, 0)
    assert sorted(third.done) == ["bob1.png", "new.png"]


def test_a_run_that_was_stopped_goes_on_where_it_was(
    gallery: Gallery, options: WorkOptions, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.indexing.indexing.STEP", 2)
    with pytest.raises(KeyboardInterrupt):
        index(gallery, read_jobs(photos), Here(options, stop_after=5))
    assert len(gallery.entries()) == 4  # two steps were whole, the third was not
    again = Here(options)
    assert counts(index(gallery, read_jobs(photos), again)) == (6, 4, 2, 0, 0)
    assert len(again.done) == 2
    assert len(sources(gallery)) == 6


def test_a_forgotten_person_left_no_trace_and_may_be_indexed_again(
    gallery: Gallery, options: WorkOptions, photos: Path
) -> None:
    index(gallery, read_jobs(photos), Here(options))
    gallery.rename("ada", "countess")
    assert counts(index(gallery, read_jobs(photos), Here(options)))[1:3] == (6, 0)
    gallery.forget("countess")
    assert counts(index(gallery, read_jobs(photos), Here(options))) == (6, 3, 3, 0, 0)


def test_an_engine_may_give_a_result_twice(gallery: Gallery, options: WorkOptions, photos: Path) -> None:
    class Stuttering(Here):
        def run(self, chunks: Iterable[Sequence[Job]]) -> Iterator[list[Result]]:
            for results in super().run(chunks):
                yield results
                yield results

    assert counts(index(gallery, read_jobs(photos), Stuttering(options))) == (6, 0, 6, 0, 0)


def test_crops_are_kept_where_asked_and_an_encrypted_gallery_hides_what_was_seen(
    toy: Any, photos: Path, tmp_path: Path
) -> None:
    key = Key.random()
    binding = Binding.of(toy.bundle.select("embedder"))
    with Gallery.create(tmp_path / "s", binding, key) as gallery:
        index(gallery, read_jobs(photos), Here(WorkOptions(toy.path, keep_crops=True)))
        assert all(entry.crop for entry in gallery.entries())
        assert counts(index(gallery, read_jobs(photos), Here(WorkOptions(toy.path)))) == (6, 6, 0, 0, 0)
        content = b"".join(file.read_bytes() for file in gallery.path.iterdir())
        assert b"ada0" not in content
        gallery.rekey(Key.random())
        assert counts(index(gallery, read_jobs(photos), Here(WorkOptions(toy.path)))) == (6, 0, 0, 0, 0)
        assert len(gallery.entries()) == 6


class TestLists:
    def test_names_come_from_the_line_or_the_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "list.txt"
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "2.png").touch()
        file.write_text("ada/1.png\nZoë Smith\tx/2.png\n\n/abs/bob/3.png\n", encoding="utf-8")
        assert read_jobs(file) == [
            Job("ada", tmp_path / "ada" / "1.png"),
            Job("Zoë Smith", tmp_path / "x" / "2.png"),
            Job("bob", Path("/abs/bob/3.png")),
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "empty list"),
            (b"\xff\xfe", "UTF-8"),
            (b"\x07\tx.png", "line 1: .*no name"),
            (b"root:x:0\n" + b"x" * 5000, "no line of it names a file that is there; the first would be .*/root:x:0"),
        ],
    )
    def test_what_is_no_list_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_jobs(tmp_path / "list.txt")
        with pytest.raises(InputError, match="cannot be read"):
            read_jobs(tmp_path / "none.txt")


def test_a_picture_that_kills_its_worker_is_found_and_costs_no_other(
    gallery: Gallery, options: WorkOptions, photos: Path
) -> None:
    """The picture is a pipe: who reads it waits for what never comes, and is killed while it waits."""
    pipe = photos / "ada" / "deadly.png"
    os.mkfifo(pipe)
    over = threading.Event()

    def kill_readers() -> None:
        while not over.wait(0.02):
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                continue  # nobody reads
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGKILL)
            os.close(writer)

    killer = threading.Thread(target=kill_readers)
    killer.start()
    try:
        summary = index(gallery, read_jobs(photos), LocalEngine(options, 1))
    finally:
        over.set()
        killer.join()
    assert counts(summary) == (7, 0, 6, 0, 1)
    assert summary.problems[0][0] == str(pipe)
    assert "died" in summary.problems[0][1]


def test_models_that_do_not_open_are_an_error_and_no_dead_workers(
    gallery: Gallery, photos: Path, own_bundle: Path
) -> None:
    (own_bundle / "embedder.onnx").write_bytes(b"damaged")
    with pytest.raises(EngineError, match=r"embedder\.onnx"):
        index(gallery, read_jobs(photos), LocalEngine(WorkOptions(own_bundle), 1))


def test_the_command_line(toy: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "ada" / "broken.png").write_bytes(b"broken")
    bad = tmp_path / "bad.jsonl"
    command = ["index", "--bundle", str(toy.path), "--gallery", str(tmp_path / "g"), str(photos), "--workers", "2"]
    started = time.monotonic()
    assert main([*command, "--bad", str(bad), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("seconds") <= time.monotonic() - started
    expected = {"pictures": 7, "seen_before": 0, "added": 6, "known": 0, "duplicates": 0, "bad": 1, "bad_before": 0}
    assert said == {**expected, "gallery": str(tmp_path / "g")}
    assert [json.loads(line)["path"] for line in bad.read_text().splitlines()] == [str(photos / "ada" / "broken.png")]
    assert main(command) == 0
    assert "0 faces added of 7 pictures; 7 indexed before (1 of them bad)" in capsys.readouterr().out
    assert main([*command[:-3], str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_where_every_picture_is_bad_the_exit_code_says_so_each_time(toy: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"broken")
    (photos / "list.txt").write_text("broken.png\nnowhere.png\n")
    command = ["index", "--bundle", str(toy.path), "--gallery", str(tmp_path / "g"), "--workers", "1"]
    assert main([*command, str(photos / "list.txt")]) == 2
    assert main([*command, str(photos / "list.txt")]) == 2


def test_a_list_of_bad_pictures_that_cannot_be_written_is_told_before_the_work(
    toy: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["index", "--bundle", str(toy.path), "--gallery", str(tmp_path / "g"), str(photos)]
    assert main([*command, "--bad", str(tmp_path / "nowhere" / "bad.jsonl")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("address", "in_environment", "noted", "says"),
    [
        (None, None, False, "this machine's own cluster did not start (no room here)"),
        ("local", None, False, "this machine's own cluster did not start (no room here)"),
        ("{port}", None, False, "no cluster at {port} (no room here)"),
        (None, "{port}", False, "no cluster at {port} (no room here)"),
        ("auto", None, True, "no cluster at {port}, noted on this machine (--address auto) (no room here)"),
        ("127.0.0.1:1", None, True, "nothing answers at 127.0.0.1:1"),
        ("", None, True, "--address is empty"),
    ],
)
def test_an_address_without_a_cluster_is_named_as_it_was_given(
    address: str | None,
    in_environment: str | None,
    noted: bool,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What answers at the address is not Ray, or Ray does not start: "no cluster at local" was said of both."""

    def init(**_: object) -> None:
        raise ConnectionError("no room here\nand much more")

    ray = SimpleNamespace(init=init, is_initialized=lambda: False, data=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        if noted:
            (tmp_path / "ray" / "ray_current_cluster").write_text(port)
        if in_environment is not None:
            monkeypatch.setenv("RAY_ADDRESS", in_environment.format(port=port))
        given = None if address is None else address.format(port=port)
        engine = RayEngine(WorkOptions(tmp_path), address=given)
        with pytest.raises((EngineError, InputError)) as caught:
            next(engine.run([[Job("ada", tmp_path / "ada.png")]]))
    assert says.format(port=port) in str(caught.value)
    assert "at local" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("private", [False, True], ids=["plain", "encrypted"])
def test_bad_pictures_of_an_earlier_run_are_listed_until_they_are_mended(
    toy: Any, photos: Path, options: WorkOptions, tmp_path: Path, private: bool
) -> None:
    if private:
        pytest.importorskip("cryptography", reason="needs the extra crypto")
    key = Key.random() if private else None
    broken, twin = photos / "ada" / "broken.png", photos / "zoe" / "twin.png"
    broken.write_bytes(b"broken")
    twin.parent.mkdir()
    twin.write_bytes((photos / "ada" / "ada0.png").read_bytes())
    with Gallery.create(tmp_path / "listed", Binding.of(toy.bundle.select("embedder")), key) as gallery:
        first = index(gallery, read_jobs(photos), Here(options))
        assert {path for path, _ in first.problems} == {str(broken), str(twin)}
        # As after a run that was killed before it could list anything.
        again = index(gallery, read_jobs(photos), Here(options))
        assert (again.problems, sorted(again.problems_before)) == ([], sorted(first.problems))
        broken.write_bytes(twin.read_bytes() + b"x")
        mended = index(gallery, read_jobs(photos), Here(options))
        assert mended.problems_before == [(str(twin), "the same picture is of somebody else already")]
        gallery.forget("ada")
        # Whose picture it was is forgotten, and so is what was wrong with the other.
        assert index(gallery, [Job("zoe", twin)], Here(options)).added == 1
        assert index(gallery, [Job("zoe", twin)], Here(options)).problems_before == []
