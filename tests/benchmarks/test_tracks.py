from __future__ import annotations

import numpy as np
import pytest

from benchmarks.camera import Memory, scene, take_turns
from benchmarks.statistics import spread
from benchmarks.tracks import FPS, Actor, Clip, Passage, Truth, changes, figures
from edge.types import Decision, Face, Frame, FrameResult, Match, TrackView


def decision(index: int, box: tuple[float, float, float, float], name: str | None, state: str, number: int) -> Decision:
    face = Face(np.array(box, np.float32), np.zeros((5, 2), np.float32), 0.9)
    view = TrackView(number, state, 1, 0.0)  # type: ignore[arg-type]
    return Decision(index, index / FPS, "clip", face, Match(name, 0.5, 0.4, "ada"), track=view)


def person(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)


def clip() -> Clip:
    return Clip((Actor("ada", (person(1),), 1, 0), Actor(None, (person(2), person(3)), 2, 1)), 50, 7)


def test_a_clip_is_the_same_in_every_run_and_says_where_everybody_is() -> None:
    first, again = clip(), clip()
    frames = [*first]
    assert len(frames) == 50
    for a, b in zip(frames, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    assert first.truth == again.truth
    for frame, places in zip(frames, first.truth, strict=True):
        assert [n for n, _ in places] == [0, 1]
        for _, (x1, y1, x2, y2) in places:
            assert 0 <= x1 < x2 <= 640
            assert 0 <= y1 < y2 <= 360
        # The front one covers what is behind: its noisy texture is there, and nowhere is it where nobody stands.
        x1, y1, x2, y2 = places[-1][1]
        assert frame.image[y1:y2, x1:x2].std() > 20
        assert frame.image[:3, :3].std() < 10 or any(x < 3 and y < 3 for _, (x, y, _, _) in places)


def test_a_decision_belongs_to_whom_it_covers_the_front_one_first() -> None:
    video = clip()
    video.truth = [[(0, (100, 100, 200, 200)), (1, (150, 100, 250, 200))]]
    truth = Truth(video)
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0.0, "clip")
    decisions = (
        decision(0, (160, 120, 200, 160), None, "unknown", 2),  # the middle is in both: the second stands in front
        decision(0, (100, 120, 140, 160), "ada", "known", 1),
        decision(0, (500, 120, 540, 160), "ada", "known", 3),
    )
    truth.write(FrameResult(frame, decisions))
    assert [passage.said for passage in truth.passages] == [["ada"], [None]]
    assert truth.elsewhere == 1


def test_figures_count_switches_flicker_times_and_errors() -> None:
    right, wrong, missed = Passage("ada", 100), Passage("bob", 100), Passage("cyd", 100)
    stranger, named = Passage(None, 100), Passage(None, 100)
    for i in range(100):
        right.take(decision(i, (0, 0, 9, 9), "ada" if i >= 10 else None, "known" if i >= 10 else "pending", 1))
        wrong.take(decision(i, (0, 0, 9, 9), "ada" if i < 50 else "bob", "known", 1 if i < 30 else 2))
        missed.take(decision(i, (0, 0, 9, 9), None, "unknown", 4))
        stranger.take(decision(i, (0, 0, 9, 9), None, "unknown", 5))
        named.take(decision(i, (0, 0, 9, 9), "ada" if i == 60 else None, "known", 6))
    found = figures([right, wrong, missed, stranger, named], 3)
    minutes = 500 / FPS / 60
    assert found["identity_switches"] == 1
    assert found["name_changes_a_minute"] == pytest.approx(3 / minutes, abs=0.01)
    assert found["seconds_to_right_name"]["median"] == pytest.approx((10 + 50) / 2 / FPS, abs=0.01)
    assert (found["strangers_named"]["hits"], found["strangers_named"]["of"]) == (1, 2)
    assert (found["known_missed"]["hits"], found["known_named_wrongly"]["hits"]) == (1, 1)
    assert found["known_frames_named_rightly"]["hits"] == 90 + 50
    assert found["strangers_named"]["interval"][0] < 50 < found["strangers_named"]["interval"][1]
    assert changes([1, 1, 2, 1]) == 2


def test_the_scenes_of_the_budget_are_720p_and_move_and_ways_take_turns() -> None:
    frames = scene(5, 3)
    assert {frame.shape for frame in frames} == {(720, 1280, 3)}
    assert (frames[0] != frames[2]).any()
    assert [frame.index for frame in Memory(frames)] == [0, 1, 2]
    order: list[str] = []

    def way(name: str, value: float) -> float:
        order.append(name)
        return value

    found = take_turns({"a": lambda: way("a", 1.0), "b": lambda: way("b", 2.0)}, 2)
    assert order == ["a", "b"] * 3
    assert found == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0, "rounds": 3}
