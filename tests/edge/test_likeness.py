from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.likeness import groups, kinships
from edge.types import Floats

LEAST = 0.5


def _around(axis: int, angles: list[float]) -> Floats:
    """Unit vectors in a plane of their own: `angles` in degrees from the plane's first axis."""
    rows = np.zeros((len(angles), 12), np.float32)
    rows[:, 2 * axis] = np.cos(np.deg2rad(angles))
    rows[:, 2 * axis + 1] = np.sin(np.deg2rad(angles))
    return rows


NONE = np.zeros((0, 12), np.float32)


def test_a_chain_of_likeness_joins_who_has_changed() -> None:
    # 0° and 100° are unlike (cosine < 0); 50° is like both (0.64).
    assert groups(_around(0, [0, 100]), LEAST).tolist() == [0, 1]
    assert groups(_around(0, [0, 100, 50]), LEAST).tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 5), max_size=12))
def test_people_at_right_angles_are_groups_whatever_the_order(people: list[int]) -> None:
    vectors = np.concatenate([_around(person, [7.0 * i]) for i, person in enumerate(people)] or [NONE])
    found = groups(vectors, LEAST)
    for i, one in enumerate(people):
        for j, other in enumerate(people):
            near = abs(i - j) * 7.0 <= 60
            if one != other:
                assert found[i] != found[j]
            elif near:
                assert found[i] == found[j]


@pytest.mark.parametrize(
    ("new", "known", "strays"),
    [
        pytest.param([(0, 3)], 0, [False] * 3, id="one person"),
        pytest.param([(0, 3), (1, 1)], 0, [False] * 3 + [True], id="one wrong picture"),
        pytest.param([(0, 3), (1, 2)], 0, [False] * 3 + [True] * 2, id="two that vouch for each other"),
        pytest.param([(0, 2), (1, 2)], 0, [True] * 4, id="nobody can say which"),
        pytest.param([(1, 5)], 1, [True] * 5, id="known is who is meant, however many come"),
        pytest.param([(0, 1), (1, 5)], 2, [False] + [True] * 5, id="known and new together"),
        pytest.param([(2, 1)], 0, [False], id="the only picture"),
    ],
)
def test_who_is_a_stray(new: list[tuple[int, int]], known: int, strays: list[bool]) -> None:
    vectors = np.concatenate([_around(axis, [3.0 * i for i in range(count)]) for axis, count in new])
    kin = kinships(vectors, _around(0, [2.0 * i for i in range(known)]), LEAST)
    assert [each.stray for each in kin] == strays


def test_the_nearest_of_a_stray_is_no_accomplice() -> None:
    kin = kinships(np.concatenate([_around(0, [0, 10, 20]), _around(1, [0, 5])]), NONE, LEAST)
    assert kin[0].nearest == pytest.approx(np.cos(np.deg2rad(10)), abs=1e-6)
    assert kin[4].nearest == pytest.approx(0.0, abs=1e-6)
    assert kinships(_around(0, [0]), NONE, LEAST)[0].nearest is None
    assert kinships(NONE, NONE, LEAST) == []
