from __future__ import annotations

import threading
import time

import pytest
from servers import until

from edge.errors import InputError
from edge.sinks.background import Background


def test_everything_arrives_in_its_order() -> None:
    taken: list[int] = []
    background = Background("test", taken.extend)
    for number in range(500):
        background.put(number)
    background.close(60.0)
    assert taken == list(range(500))
    assert background.dropped == 0


def test_whoever_puts_never_waits_for_a_slow_one_and_drops_are_counted() -> None:
    taken: list[int] = []
    free = threading.Event()

    def take(items: list[int]) -> None:
        free.wait(60)
        taken.extend(items)

    background = Background("test", take, room=10)
    started = time.monotonic()
    for number in range(1000):
        background.put(number)
    assert time.monotonic() - started < 30, "half of what a single one takes"
    free.set()
    background.close(60.0)
    assert 10 <= len(taken) <= 21
    assert taken == sorted(taken)
    assert background.dropped == 1000 - len(taken)


def test_the_end_is_not_waited_for_longer_than_allowed() -> None:
    begun, free = threading.Event(), threading.Event()

    def take(items: list[int]) -> None:
        begun.set()
        free.wait(60)

    background = Background("test", take, room=10)
    background.put(1)
    assert begun.wait(60)
    for number in range(5):
        background.put(number)
    started = time.monotonic()
    background.close(0.3)
    assert time.monotonic() - started < 30, "half of what it takes"
    assert background.dropped == 5
    free.set()


def test_waiting_for_room_loses_nothing() -> None:
    taken: list[int] = []

    def take(items: list[int]) -> None:
        time.sleep(0.002)
        taken.extend(items)

    background = Background("test", take, room=3)
    for number in range(300):
        background.put_waiting(number)
    background.close(60.0)
    assert taken == list(range(300))


def test_what_cannot_be_taken_is_counted_with_a_line_each_way(caplog: pytest.LogCaptureFixture) -> None:
    full = True

    def take(items: list[int]) -> None:
        if full:
            raise InputError("spool.db: the disk is full")

    background = Background("test", take)
    for number in range(20):
        background.put(number)
    until(lambda: background.dropped == 20)
    full = False
    background.put(99)
    background.close(60.0)
    assert background.dropped == 20
    assert [record.message for record in caplog.records] == [
        "spool.db: the disk is full; events are dropped",
        "test: keeps events again; 20 were dropped so far",
    ]


def test_what_is_done_regularly_is_done_also_while_more_and_more_comes() -> None:
    done = threading.Event()

    def take(items: list[int]) -> None:
        if not done.is_set():
            background.put(items[0])
        time.sleep(0.01)

    background = Background("test", take, regularly=done.set)
    background.put(1)
    assert done.wait(60)
    background.close(60.0)


def test_a_bug_comes_out_where_somebody_sees_it() -> None:
    background = Background("test", lambda items: items[1:].index(7) and None)
    background.put(1)
    with pytest.raises(ValueError, match="7 is not in list"):
        background.close(60.0)
