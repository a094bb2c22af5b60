"""The working memory that all models of a process share which ONNX Runtime computes on the CPU."""

from __future__ import annotations

import threading
from typing import Any

FIRST_BYTES = 32 << 20
"""Taken from the system at once, in addresses and not in memory: a page counts once something was written to it. One
piece that the tensors of both models find room in is used more closely than pieces of 1, 2, 4, … MB after each other:
a camera's process stands 8 to 25 MB lower (`python -m benchmarks.camera --parts start`)."""

_LOCK = threading.Lock()
_registered = False


def share(settings: Any) -> None:
    """Lets the session made from these ONNX Runtime settings take its memory from the arena of the process.

    By default each session has an arena of its own: models that run one after the other then each hold the most they
    ever needed. This one is kept when a session closes, for the next.
    """
    global _registered
    import onnxruntime as ort

    with _LOCK:
        if not _registered:
            kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            ort.create_and_register_allocator(kind, ort.OrtArenaCfg({"initial_chunk_size_bytes": FIRST_BYTES}))
            _registered = True
    settings.add_session_config_entry("session.use_env_allocators", "1")
