"""How long the page keeps whom it saw."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from clock import Clock

from edge.align import ARCFACE_112
from edge.gallery import Gallery
from edge.live import state as shown
from edge.live.board import Board
from edge.live.strangers import FORGOTTEN_AFTER
from edge.types import Decision, Face, Floats, Frame, FrameResult, Image, Match, TrackView

FACE = Face(np.array([20, 20, 60, 60], np.float32), np.float32(ARCFACE_112 / 3 + 20), 0.9)
ADA, LIKE_ADA, LIKE_EVE = Match("ada", 0.7, 0.4, "ada"), Match(None, 0.3, 0.4, "ada"), Match(None, 0.2, 0.4, "eve")


def result(*matches: Match) -> FrameResult:
    frame = Frame(np.zeros((90, 160, 3), np.uint8), 0, 0.0, "cam")
    return FrameResult(frame, tuple(Decision(0, 0.0, "cam", FACE, match) for match in matches))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(["cam"], 0.4, clock.monotonic)


def test_a_stranger_is_gone_after_half_an_hour_though_nobody_looks_at_the_page(board: Board, clock: Clock) -> None:
    board.write(result(LIKE_ADA))
    clock.sleep(FORGOTTEN_AFTER / 2)
    board.write(result())
    assert board._strangers.get(1) is not None
    clock.sleep(FORGOTTEN_AFTER / 2 + 1)
    board.write(result())
    assert board._strangers.get(1) is None


def test_a_stranger_who_is_old_cannot_be_named_any_more(board: Board, clock: Clock) -> None:
    board.write(result(LIKE_ADA))
    clock.sleep(FORGOTTEN_AFTER + 1)
    assert board.stranger(1) is None


SHARP = np.random.default_rng(0).integers(0, 256, (90, 160, 3)).astype(np.uint8)


def tracked(*people: tuple[int, Floats], image: Image = SHARP) -> FrameResult:
    """Unknown faces by number of their track and what they look like."""
    views = [TrackView(number, "unknown", looks=5, since=0.0, template=template) for number, template in people]
    frame = Frame(image, 0, 0.0, "cam")
    return FrameResult(
        frame, tuple(Decision(0, 0.0, "cam", FACE, Match(None, 0.2, 0.4, None), track=view) for view in views)
    )


def test_two_who_are_seen_together_are_two_strangers_however_alike(board: Board, clock: Clock) -> None:
    blurred, alike = np.float32([1, 0]), np.float32([0.9, 0.4358899])
    board.write(tracked((1, blurred)))
    board.write(tracked((2, alike), (1, blurred)))
    board.write(tracked((1, blurred), (2, alike), (3, blurred)))
    assert [stranger.keys for stranger in board.strangers()] == [(("cam", 3),), (("cam", 2),), (("cam", 1),)]
    clock.sleep(5)
    board.write(tracked((4, blurred)))
    assert [len(stranger.keys) for stranger in board.strangers()] == [2, 1, 1], "who comes back alone is known again"


def test_a_blurred_face_is_nobody_who_was_there_before(board: Board, clock: Clock) -> None:
    template = np.float32([1, 0])
    blurred = np.asarray(cv2.GaussianBlur(SHARP, (0, 0), 4), np.uint8)
    for number, image in enumerate((blurred, blurred, SHARP), 1):
        board.write(tracked((number, template), image=image))
        clock.sleep(5)
    assert [stranger.keys for stranger in board.strangers()] == [(("cam", 2), ("cam", 3)), (("cam", 1),)]


def test_who_leaves_the_gallery_leaves_the_page(board: Board, clock: Clock) -> None:
    board.gallery_is(("ada", "eve"))
    board.write(result(ADA, LIKE_ADA))
    clock.sleep(1)
    board.write(result(LIKE_EVE))
    board.gallery_is(("eve",))
    # A frame that was under way.
    board.write(result(ADA))
    assert board.people() == []
    assert [stranger.nearest for stranger in board.strangers()] == ["eve", None]
    board.gallery_is(("ada", "eve"))
    board.write(result(ADA))
    assert [person.name for person in board.people()] == ["ada"]


def test_somebody_forgotten_beside_a_camera_is_gone_from_its_page(rig: Any) -> None:
    name = rig.wait(lambda state: state["people"] and state["strangers"])["people"][0]["name"]
    with Gallery.open(rig.gallery) as gallery:
        gallery.forget(name)
    state = rig.wait(lambda state: not state["people"] and state["gallery"]["identities"] == 0)
    rig.wait(lambda state: name not in json.dumps(state, ensure_ascii=False))
    assert rig.ask(f"/api/portrait?name={quote(name)}").status == 404
    assert abs(state["now"] - state["strangers"][0]["last"]) < 60, "seconds by the same clock"


def test_times_on_the_page_follow_the_wall_clock_and_ages_do_not(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rig.wait(lambda state: state["people"] and state["strangers"])
    real = shown.time.time
    # As where a device without a battery learns the time from the network, some minutes after it has started.
    monkeypatch.setattr(shown, "time", type("Set", (), {"time": staticmethod(lambda: real() + 86400)}))
    after = rig.ask("/api/state").json
    assert after["now"] - before["now"] > 86000
    assert after["now"] - after["people"][0]["last"] < 60
    assert [stranger["id"] for stranger in after["strangers"]] == [stranger["id"] for stranger in before["strangers"]]
