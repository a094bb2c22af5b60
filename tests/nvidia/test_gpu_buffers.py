"""The memory of a frame, on a device that only notes what it is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edge.gpu_buffers import FrameBuffer, Memory


def test_a_frame_whose_work_failed_is_waited_for_before_the_next_one_takes_its_place() -> None:
    """Its copy may be under way, on another stream than the next one: it would come from, or over, the next frame."""
    waited: list[tuple[str, int]] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def synchronize(self) -> None:
            waited.append((self.name, int(frame.host.array[0])))

    def memory(size: int) -> Any:
        return SimpleNamespace(address=1, size=size, array=np.zeros(size, np.uint8), free=lambda: None)

    device: Any = SimpleNamespace(alloc=memory, alloc_pinned=memory)
    frame = FrameBuffer(Memory(device), 12)
    detection, embedding = Stream("detection"), Stream("embedding")
    images = [np.full((2, 2, 3), value, np.uint8) for value in (1, 2, 3, 4)]
    streams: list[Any] = [detection, embedding]
    frame.put(images[0], streams[0])
    frame.settle(streams[0])
    frame.put(images[1], streams[0])  # and fails
    frame.settle(streams[1])
    frame.put(images[2], streams[1])
    assert waited == [("detection", 2)], "while the frame was still what it was"
    frame.settle(streams[1])
    frame.put(images[3], streams[0])
    assert waited == [("detection", 2)], "nobody waits where nothing failed"
    assert frame.holds is None
