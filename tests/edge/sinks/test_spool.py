from __future__ import annotations

import json
import resource
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InputError
from edge.sinks.spool import Spool


def event(number: int) -> dict[str, Any]:
    return {"source": "door", "number": number}


def numbers(spool: Spool) -> list[int]:
    return [each.entries["number"] for each in spool.first(10**6)]


def test_events_come_back_in_their_order_with_the_ids_they_were_given(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    ids = spool.put([event(0), event(1)]) + spool.put([event(2)])
    spool.close()
    spool = Spool(tmp_path / "s.db")
    assert [each.id for each in spool.first(10)] == ids
    assert numbers(spool) == [0, 1, 2]
    assert json.loads(spool.first(1)[0].payload()) == {"id": ids[0], **event(0)}
    spool.remove(spool.first(2))
    assert numbers(spool) == [2]
    assert spool.waiting == 1
    spool.remove(spool.first(1))
    assert spool.put([event(3)])[0] not in ids
    spool.close()


def test_ids_of_two_spools_never_meet(tmp_path: Path) -> None:
    one, two = Spool(tmp_path / "1.db"), Spool(tmp_path / "2.db")
    assert not {*one.put([event(0)] * 5)} & {*two.put([event(0)] * 5)}


def test_beyond_the_bound_the_oldest_go_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = len(json.dumps(event(10)))
    spool = Spool(tmp_path / "s.db", max_bytes=size * 50)
    for number in range(10, 99):
        spool.put([event(number)])
    assert numbers(spool) == list(range(49, 99))
    assert (spool.dropped, spool.waiting) == (39, 50)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 's.db'}: full; the oldest events are dropped"
    ]
    # One that is being sent may be dropped before it arrived.
    sending = spool.first(3)
    spool.put([event(99)])
    spool.remove(sending)
    assert (spool.waiting, numbers(spool)[0]) == (48, 52)
    spool.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "remove", "refuse", "reopen"]), st.integers(1, 9)), max_size=30))
def test_it_is_a_queue_whatever_is_done(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    path = tmp_path_factory.mktemp("s") / "s.db"
    spool, expected, made = Spool(path), list[int](), 0
    for what, count in steps:
        if what == "put":
            spool.put([event(made + each) for each in range(count)])
            expected += range(made, made + count)
            made += count
        elif what == "remove":
            spool.remove(spool.first(count))
            expected = expected[count:]
        elif what == "refuse" and expected:
            spool.set_aside(spool.first(1)[0], "400")
            expected = expected[1:]
        elif what == "reopen":
            spool.close()
            spool = Spool(path)
        assert numbers(spool) == expected
        assert spool.waiting == len(expected)
    spool.close()


def test_what_is_refused_is_kept_beside(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    spool.put([event(0), event(1)])
    spool.set_aside(spool.first(1)[0], "answers 400 Bad Request")
    assert numbers(spool) == [1]
    spool.close()
    with sqlite3.connect(tmp_path / "s.db") as connection:
        ((body, reason),) = connection.execute("SELECT body, reason FROM refused").fetchall()
    assert (json.loads(body), reason) == (event(0), "answers 400 Bad Request")


def test_a_second_process_is_told_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    with pytest.raises(InputError, match="another edge run sends to the same place"):
        Spool(tmp_path / "s.db")
    spool.close()
    Spool(tmp_path / "s.db").close()


def test_a_damaged_file_is_put_aside_and_the_box_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"no database " * 1000)
    spool = Spool(path)
    spool.put([event(0)])
    assert numbers(spool) == [0]
    assert (tmp_path / "s.db.damaged").exists()
    assert "put aside as s.db.damaged" in caplog.text


def test_a_full_disk_loses_what_could_not_be_put_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    spool = Spool(path)
    kept = [number for number in range(20) if spool.put([event(number)])]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow any more: SQLite's writes fail as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("s.db-wal").stat().st_size, before[1]))
    try:
        for number in range(20, 30):
            with pytest.raises(InputError, match="the spool cannot be used"):
                spool.put([event(number)])
        assert spool.waiting == 20
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept += [number for number in range(30, 40) if spool.put([event(number)])]
    assert numbers(spool) == kept
    assert spool.waiting == 30
    spool.close()
    assert numbers(Spool(path)) == kept


def test_nobody_else_may_read_it_and_a_bad_place_is_the_users_mistake(tmp_path: Path) -> None:
    Spool(tmp_path / "new" / "s.db").close()
    assert stat.S_IMODE((tmp_path / "new" / "s.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="name a folder with --spool"):
        Spool(tmp_path / "file" / "s.db")


_CHILDREN = """
import os, random, signal, sys, time
from pathlib import Path
from edge.sinks.spool import Spool

path, rounds = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(3)
for number in range(rounds):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        spool = Spool(path)
        os.write(writing, b"open\\n")
        count = 0
        while True:
            ids = spool.put([{"source": "door", "round": number, "count": count + each} for each in range(3)])
            count += 3
            os.write(writing, b"".join(b"put %s\\n" % one.encode() for one in ids))
            going = spool.first(2)
            os.write(writing, b"".join(b"sent %s\\n" % one.id.encode() for one in going))
            spool.remove(going)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        # So many lines from its beginning, however little of the processor it gets, and a moment after.
        lines = [said.readline() for _ in range(1 + draw.randrange(12))]
        time.sleep(draw.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
        sys.stdout.write((b"".join(lines) + said.read()).decode())
    os.waitpid(child, 0)
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rounds = 150
    command = [sys.executable, "-c", _CHILDREN, str(tmp_path / "s.db"), str(rounds)]
    # It ends with its last round, however long a busy machine takes over that: a minute where six others compute.
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    lines = [line.split() for line in done.stdout.splitlines()]
    put = [words[1] for words in lines if words[0] == "put"]
    sent = {words[1] for words in lines if words[0] == "sent"}
    spool = Spool(tmp_path / "s.db")
    left = spool.first(10**6)
    assert len(put) > rounds
    assert len(put) == len({*put})
    assert {*put} <= sent | {each.id for each in left}
    order = [(each.entries["round"], each.entries["count"]) for each in left]
    assert order == sorted({*order})
    assert spool.waiting == len(left)
