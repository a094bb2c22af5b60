from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from edge.memory import release_unused

_PIECES = """
from pathlib import Path
import ctypes
from edge.memory import release_unused

def resident():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1])

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
pieces = [libc.malloc(32 << 10) for _ in range(1024)]
for piece in pieces:
    ctypes.memset(piece, 1, 32 << 10)
for piece in pieces[:-1]:  # the last one stays, above all others
    libc.free(piece)
before = resident()
release_unused()
print(before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="elsewhere nothing is done")
def test_what_was_freed_below_what_stays_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _PIECES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 24 << 10


def test_a_c_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Library:
        def __getattr__(self, name: str) -> None:
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setattr("edge.memory.ctypes.CDLL", lambda name: Library())
    release_unused()
    assert asked == ["malloc_trim"]
