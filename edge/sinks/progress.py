"""A progress bar for files, on standard error."""

from __future__ import annotations

import sys
from typing import Any

from edge.types import FrameResult


class Progress:
    """Frames done of `total`; without a terminal nothing is printed, and what prints is not even loaded."""

    name = "progress"

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="frame", leave=False, dynamic_ncols=True)

    def write(self, result: FrameResult) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
