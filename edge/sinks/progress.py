"""A progress bar for files, on standard error."""

from __future__ import annotations

from tqdm import tqdm

from edge.types import FrameResult


class Progress:
    """Frames done of `total`; without a terminal nothing is printed."""

    name = "progress"

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="frame", disable=None, leave=False, dynamic_ncols=True)

    def write(self, result: FrameResult) -> None:
        self._bar.update(1)

    def close(self) -> None:
        self._bar.close()
