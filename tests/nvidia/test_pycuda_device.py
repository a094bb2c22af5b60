"""What our code for pycuda does in several threads, on a stand-in that has pycuda's stack of contexts and its rules."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.cuda import driver
from edge.cuda.pycuda_device import PycudaDevice
from edge.errors import EngineError


class Error(Exception):
    """pycuda.driver.Error."""


class Stand:
    """pycuda.driver: each thread has a stack; with an empty one nothing can be made or freed."""

    def __init__(self) -> None:
        self.stacks: dict[int, list[Any]] = {}
        self.alive = 0

    def stack(self) -> list[Any]:
        return self.stacks.setdefault(threading.get_ident(), [])

    def make(self, *_: Any) -> Any:
        if not self.stack():
            raise Error("explicit_context_dependent failed: invalid device context - no currently active context?")
        self.alive += 1
        return Thing(self)

    def pinned(self, size: int, dtype: Any) -> Any:
        thing = self.make()
        array = np.zeros(size, dtype).view(Array)
        array.owner = thing
        return array

    def module(self) -> ModuleType:
        context = SimpleNamespace(
            handle=7,
            push=lambda: self.stack().append(context),
            pop=lambda: self.stack().pop(),
            detach=lambda: None,
        )
        module: Any = ModuleType("pycuda.driver")
        module.Error, module.init = Error, lambda: None
        module.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: context)
        module.mem_alloc = module.Stream = module.Event = module.module_from_buffer = self.make
        module.pagelocked_empty = self.pinned
        return module  # type: ignore[no-any-return]


class Thing:
    """What pycuda makes: it frees itself with `free` or with its last reference, where its context is current."""

    handle = 1

    def __init__(self, stand: Stand) -> None:
        self.stand, self.held = stand, True

    def __int__(self) -> int:
        return 4096

    def free(self) -> None:
        if not self.stand.stack():
            raise Error("cannot activate out-of-thread context")
        self.stand.alive -= self.held
        self.held = False

    def get_function(self, name: str) -> Any:
        return SimpleNamespace(prepare=lambda signature: None)

    def __del__(self) -> None:
        if self.held and self.stand.stack():
            self.free()


class Array(np.ndarray):  # type: ignore[type-arg]
    """Pinned memory, whose `base` frees it."""

    owner: Thing

    @property
    def base(self) -> Any:
        return self.owner


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    package: Any = ModuleType("pycuda")
    package.driver = made.module()
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    info = driver.DeviceInfo(0, "stand-in", (8, 7), 1, 12060)
    monkeypatch.setattr("edge.cuda.pycuda_device.device_info", lambda index: info)
    monkeypatch.setattr("edge.cuda.pycuda_device.library", lambda: SimpleNamespace(cuCtxSetCurrent=lambda context: 0))
    return made


def test_any_thread_makes_and_frees_and_leaves_nothing_on_its_stack(stand: Stand) -> None:
    """A thread that ends with a context on its stack takes the process with it."""
    device = PycudaDevice()
    faults: list[BaseException] = []

    def work() -> None:
        try:
            device.activate()
            for held in (device.alloc(8), device.alloc_pinned(8)):
                held.free()
                held.free()
            for closed in (device.stream(), device.event()):
                closed.close()
                closed.close()
            device.load_kernels(b"image", {"letterbox": "P"})
        except BaseException as error:
            faults.append(error)

    for _ in range(2):
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    work()
    assert not faults
    assert stand.alive == 1, "of one image there is one module, and of all else nothing"
    device.close()
    device.close()
    assert stand.alive == 0
    assert not any(stand.stacks.values())


def test_a_fault_leaves_nothing_on_the_stack(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    device = PycudaDevice()

    def full(size: int) -> Any:
        raise Error("cuMemAlloc failed: out of memory")

    monkeypatch.setattr(sys.modules["pycuda.driver"], "mem_alloc", full)
    with pytest.raises(EngineError, match=r"out of memory; see edge doctor"):
        device.alloc(8)
    assert not any(stand.stacks.values())
