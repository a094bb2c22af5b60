"""Files of the cache of engines, written by several at once and by some who are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.engine_cache import EngineCache
from edge.errors import EngineError


def test_two_write_one_file_at_once_also_where_both_are_process_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in two containers that share the folder: threads have one process's number as well."""
    both, real = threading.Barrier(2, timeout=30), os.fsync

    def fsync(file: int) -> None:
        real(file)
        both.wait()

    monkeypatch.setattr(os, "fsync", fsync)
    cache, failed = EngineCache(tmp_path / "cache"), list[EngineError]()

    def write(data: bytes) -> None:
        try:
            cache.write(cache.folder / "a.plan", data)
        except EngineError as error:
            failed.append(error)

    contents = [bytes([number]) * 100_000 for number in (1, 2)]
    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    (file,) = cache.folder.iterdir()
    assert file.read_bytes() in contents
    assert file.stat().st_mode & 0o777 == 0o600


KILLED = """
import os, sys
from pathlib import Path
from edge.engine_cache import EngineCache
os.fsync = lambda file: os.kill(os.getpid(), 9)
cache = EngineCache(Path(sys.argv[1]))
cache.write(cache.folder / "a.plan", b"half a plan")
"""


def test_what_a_killed_writer_left_goes_with_the_next_file_that_is_written(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "cache"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 1
    cache = EngineCache(folder)
    cache.write(folder / "b.plan", b"another")
    assert [file.name for file in folder.iterdir()] == ["b.plan"]


def test_what_somebody_else_still_writes_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, real = EngineCache(tmp_path / "cache"), os.fsync

    def fsync(file: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        cache.write(cache.folder / "b.plan", b"meanwhile")

    monkeypatch.setattr(os, "fsync", fsync)
    cache.write(cache.folder / "a.plan", b"a plan")
    assert {file.name: file.read_bytes() for file in cache.folder.iterdir()} == {
        "a.plan": b"a plan",
        "b.plan": b"meanwhile",
    }


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    (cache.folder / "a.plan").mkdir()
    with pytest.raises(EngineError, match=r"a\.plan: cannot be written .*; set ARCEDGE_CACHE"):
        cache.write(cache.folder / "a.plan", b"a plan")
    assert [file.name for file in cache.folder.iterdir()] == ["a.plan"]
