"""Work of frames that comes again and again, each kind recorded as a CUDA graph of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from edge.cuda.graphs import Recorded
from edge.engines.tensorrt.session import Prepared


class Recordings:
    """Recorded work by what it is like. Of the `most` that are kept the one unused for longest makes room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Hashable, tuple[Sequence[Prepared], Recorded]] = {}

    def find(self, like: Hashable, prepared: Sequence[Prepared], make: Callable[[], Recorded]) -> Recorded:
        """The work that is like this; made anew where TensorRT gave a context that it runs in to another shape.

        prepared: what the engines in it run, as they are prepared now.
        """
        before, work = self._kept.pop(like, ((), None))
        if work is not None and not _are(before, prepared):
            work.close()
            work = None
        if work is None:
            work = make()
        self._kept[like] = prepared, work  # the last used is the last
        while len(self._kept) > self._most:
            self._kept.pop(next(iter(self._kept)))[1].close()
        return work

    @property
    def graphs(self) -> int:
        """How many are one call by now."""
        return sum(work.is_graph for _, work in self._kept.values())

    @property
    def graphless(self) -> list[str]:
        """Why others are not, each reason once."""
        return sorted({work.graphless for _, work in self._kept.values()} - {""})

    def close(self) -> None:
        """Frees them; calling it again does nothing."""
        for _, work in self._kept.values():
            work.close()
        self._kept.clear()


def _are(before: Sequence[Prepared], now: Sequence[Prepared]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
