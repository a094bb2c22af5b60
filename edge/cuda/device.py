"""The GPU, through pycuda, or where pycuda is not there through cuda-python."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from edge.cuda.driver import missing_driver
from edge.cuda.protocol import CudaDevice
from edge.errors import EngineError, MissingExtraError

BACKENDS = {
    "pycuda": ("pycuda", "edge.cuda.pycuda_device:PycudaDevice"),
    "cuda-python": ("cuda.bindings", "edge.cuda.cuda_python_device:CudaPythonDevice"),
}
"""Name → the package it needs, and the class. The first whose package is installed is taken."""


def missing_backend() -> str | None:
    """None where a driver and one of the packages are there, else one line that says what is missing."""
    if missing := missing_driver():
        return missing
    if not any(_installed(package) for package, _ in BACKENDS.values()):
        return str(MissingExtraError("pycuda", "tensorrt"))
    return None


def open_device(index: int = 0, backend: str | None = None) -> CudaDevice:
    """A GPU through `backend`, or through the first one installed.

    Raises EngineError where there is no driver or no such backend, MissingExtraError where no package is installed.
    """
    if backend is not None and backend not in BACKENDS:
        raise EngineError(f"no CUDA backend is called {backend!r}; there is {', '.join(BACKENDS)}")
    if missing := missing_driver():
        raise EngineError(missing)
    for name, (package, target) in BACKENDS.items():
        if backend in (None, name) and _installed(package):
            module, _, attribute = target.partition(":")
            device: CudaDevice = getattr(import_module(module), attribute)(index)
            return device
    raise MissingExtraError(backend or "pycuda", "tensorrt")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a dotted name, where the parent is not there
        return False
