from __future__ import annotations

from typing import Any

import pytest

from edge.sinks.visits import Visits


@pytest.fixture
def visits() -> Visits:
    numbers = iter(range(100))
    return Visits("door", lambda: f"v{next(numbers)}", gone_after=5.0)


def said(events: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(event["type"], event["identity"]) for event in events]


def test_somebody_is_told_of_once_when_they_come_and_once_when_they_have_gone(visits: Visits, looks: Any) -> None:
    events = []
    for step in range(100):
        state = "pending" if step < 3 else "known"
        events += visits.see(looks(step / 10, (1, state, None if step < 3 else "ada")))
    for step in range(100, 200):
        events += visits.see(looks(step / 10))
    came, left = events
    assert came == {
        "type": "appeared",
        "source": "door",
        "time": 0.3,
        "visit": "v0",
        "since": -0.2,
        "identity": "ada",
        "nearest": "ada",
        "similarity": 0.61,
        "threshold": 0.4,
        "frame": 8,
        "box": [1.0, 2.0, 3.0, 4.0],
        "score": 0.9,
    }
    assert left == {
        "type": "left",
        "source": "door",
        "time": 9.9,
        "visit": "v0",
        "since": -0.2,
        "identity": "ada",
        "seconds": 10.1,
        "best_similarity": 0.61,
        "reason": "gone",
    }


def test_a_track_that_is_lost_and_found_again_is_one_visit(visits: Visits, looks: Any) -> None:
    events = visits.see(looks(0.0, (1, "known", "ada")))
    events += visits.see(looks(4.0, (2, "known", "ada")))
    events += visits.see(looks(8.0, (2, "known", "ada")))
    assert said(events) == [("appeared", "ada")]
    assert said(visits.see(looks(13.5))) == [("left", "ada")]


def test_a_stranger_who_turns_out_to_be_known_changes_and_back(visits: Visits, looks: Any) -> None:
    visits.see(looks(0.0, (1, "unknown", None)))
    assert visits.present() == {"source": "door", "people": [], "unknown": 1, "count": 1, "time": 0.0}
    (changed,) = visits.see(looks(1.0, (1, "known", "ada")))
    assert (changed["type"], changed["identity"], changed["before"], changed["visit"]) == ("changed", "ada", None, "v0")
    assert visits.present()["people"] == ["ada"]
    (changed,) = visits.see(looks(2.0, (1, "known", "bob")))
    assert (changed["identity"], changed["before"]) == ("bob", "ada")
    (changed,) = visits.see(looks(3.0, (1, "unknown", None)))
    assert (changed["identity"], changed["before"]) == (None, "bob")
    assert visits.present()["unknown"] == 1
    assert visits.see(looks(4.0, (1, "pending", None))) == []


def test_a_stranger_who_turns_out_to_be_somebody_who_is_there_leaves_as_a_stranger(visits: Visits, looks: Any) -> None:
    visits.see(looks(0.0, (1, "known", "ada"), (2, "unknown", None)))
    assert visits.present()["count"] == 2
    (left,) = visits.see(looks(1.0, (2, "known", "ada")))
    assert (left["type"], left["identity"], left["reason"]) == ("left", None, "merged")
    assert (visits.present()["people"], visits.present()["count"]) == (["ada"], 1)


def test_a_name_that_another_track_still_has_stays(visits: Visits, looks: Any) -> None:
    visits.see(looks(0.0, (1, "known", "ada")))
    visits.see(looks(1.0, (2, "known", "ada")))
    assert said(visits.see(looks(2.0, (1, "known", "bob"), (2, "known", "ada")))) == [("appeared", "bob")]
    assert visits.present()["people"] == ["ada", "bob"]


def test_the_wall_clock_may_jump_where_frames_have_an_arrival(visits: Visits, looks: Any) -> None:
    from dataclasses import replace

    def at(arrived: float, wall: float, *people: Any) -> Any:
        made = looks(wall, *people)
        return replace(made, frame=replace(made.frame, arrived=arrived))

    events = visits.see(at(10.0, 5000.0, (1, "known", "ada")))
    events += visits.see(at(11.0, 1000.0, (1, "known", "ada")))
    events += visits.see(at(12.0, 9000.0))
    assert said(events) == [("appeared", "ada")]
    (left,) = visits.see(at(17.0, 100.0))
    assert (left["type"], left["identity"], left["seconds"]) == ("left", "ada", 1.5)


def test_untracked_people_are_told_apart_by_name_and_strangers_are_one(visits: Visits, looks: Any) -> None:
    events = []
    for step in range(10):
        people = [(0, "known", "ada"), (0, "known", "bob"), (0, "known", None), (0, "known", None)]
        events += visits.see(looks(step / 10, *people, tracked=False))
    assert said(events) == [("appeared", "ada"), ("appeared", "bob"), ("appeared", None)]
    assert visits.present()["unknown"] == 1


def test_in_the_end_everybody_leaves(visits: Visits, looks: Any) -> None:
    visits.see(looks(0.0, (1, "known", "ada"), (2, "unknown", None)))
    left = visits.end("stopped")
    assert [event["reason"] for event in left] == ["stopped", "stopped"]
    assert visits.present()["count"] == 0
    assert visits.end("stopped") == []
