"""What the long trainings share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.running import rate_at, write_state


def test_the_rate_rises_in_a_straight_line_and_falls_in_one_to_zero() -> None:
    rates = [rate_at(step, 100, 0.5, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == pytest.approx(0.5 * 0.91)
    assert rates[50] == pytest.approx(0.25)
    assert rates[100] == 0.0
    assert max(rates) == max(rates[9:11])


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "a.state"
    write_state({"step": 1}, file)
    with pytest.raises(AttributeError, match="local"):
        write_state({"step": lambda: 2}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
