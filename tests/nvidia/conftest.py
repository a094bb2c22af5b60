"""Builds the emulated driver once, and runs the real CUDA bindings on it in processes of their own."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Helpers beside the tests: the same files are run as scripts, on a GPU or on the emulated driver.
sys.path.insert(0, str(HERE))

from kernel_source import kernels_of  # noqa: E402


@pytest.fixture(scope="session")
def emulated_driver(between_workers: Path, repository: Path) -> Path:
    """Folder with a libcuda.so.1 that runs kernels on the CPU, compiled once for all processes that share the tests."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    out = between_workers / "driver"
    with (between_workers / "driver.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "libcuda.so.1").exists():
            out.mkdir(exist_ok=True)
            _compile_driver(out, repository)
    return out


def _compile_driver(out: Path, repository: Path, *flags: str) -> None:
    sources = [HERE / "emulated_driver.cpp"]
    extension = next(iter(_site("pycuda").glob("pycuda/_driver*.so")), None) if find_spec("pycuda") else None
    if extension is not None:
        # pycuda links every function of the driver; those that nothing here calls answer "not supported".
        listed = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
        wanted = set(re.findall(r"\bcu[A-Z]\w+", listed.stdout))
        have = set(re.findall(r"^int (cu\w+)\(", sources[0].read_text(encoding="utf-8"), re.MULTILINE))
        stubs = out / "stubs.cpp"
        lines = [f'extern "C" int {name}(void) {{ return 801; }}' for name in sorted(wanted - have)]
        stubs.write_text("\n".join(lines), encoding="ascii")
        sources.append(stubs)
    bounds = "".join(f"BOUND({name}, {kernel.threads});\n" for name, kernel in kernels_of(repository).items())
    (out / "bounds.inc").write_text(bounds, encoding="ascii")
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    command += ["-U_FORTIFY_SOURCE"]  # which takes a jump to another stack for one that goes wrong
    command += flags
    command += [f"-I{repository / 'kernels'}", f"-I{HERE}", f"-I{out}", *map(str, sources)]
    command += ["-o", str(out / "libcuda.so.1"), "-Wl,-soname,libcuda.so.1", "-ldl"]
    subprocess.run(command, check=True)


@pytest.fixture
def fusing_driver(tmp_path: Path, repository: Path) -> Path:
    """As `emulated_driver`, with products and sums fused wherever they stand together, as nvcc compiles for a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    flags = ["-ffp-contract=fast"]
    if platform.machine() == "x86_64":
        if " fma " not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
            pytest.skip("needs a processor that fuses")
        flags.append("-mfma")
    out = tmp_path / "driver"
    out.mkdir()
    _compile_driver(out, repository, *flags)
    return out


@pytest.fixture(params=["cuda-python", "pycuda"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend of edge.cuda that is installed."""
    if find_spec({"pycuda": "pycuda", "cuda-python": "cuda"}[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def on_emulator(backend: str, emulated_driver: Path, repository: Path) -> object:
    """Runs a script beside this file with a backend's name, in a process whose NVIDIA driver is the emulated one."""

    def run(script: str, *arguments: str, driver: Path = emulated_driver) -> str:
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{driver}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "PYTHONPATH": f"{repository}:{os.environ.get('PYTHONPATH', '')}",
            # A pycuda that was built without a driver at hand does not name its library.
            "LD_PRELOAD": str(driver / "libcuda.so.1"),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(HERE / script), backend, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def _site(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]
