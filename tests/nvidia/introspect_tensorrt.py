"""Records which names each TensorRT version's Python bindings really have, from the bindings themselves, without a GPU.

    python3.10 introspect_tensorrt.py OUT.json DIR [DIR …]
    python3.10 introspect_tensorrt.py --check DIR [DIR …]     runs bindings_check.py on each instead

Each DIR is one unpacked wheel: `tensorrt-cu1x-bindings` (bindings alone) or `tensorrt` 8.5 (complete). The libraries
a wheel links but does not hold are replaced by stubs whose functions return nothing, which is enough to import it:
classes and enums are defined by the bindings. Nothing is constructed. Run it with the Python the wheels are for; needs
gcc and readelf. The table that `test_api_table.py` reads was made by it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CLASSES = (
    *("Builder", "BuilderFlag", "DataType", "Dims", "EngineInspector", "ExecutionContextAllocationStrategy"),
    *("HardwareCompatibilityLevel", "IBuilderConfig"),
    *(
        "ICudaEngine",
        "IErrorRecorder",
        "IExecutionContext",
        "IHostMemory",
        "IInt8EntropyCalibrator2",
        "ILayer",
        "ILogger",
    ),
    *("INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "ITensor", "ITimingCache", "Logger"),
    *("LayerInformationFormat", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError"),
    *("PreviewFeature", "ProfilingVerbosity", "Runtime", "TacticSource", "TensorIOMode", "TensorLocation"),
)
"""What a builder and a runtime of ours could come to use; the module's own names are recorded as well."""

_DUMP = """
import json, sys
from importlib import import_module
module = import_module(sys.argv[1])
classes = sys.argv[2:]
print(json.dumps({
    "version": module.__version__,
    "module": sorted(name for name in dir(module) if not name.startswith("_")),
    "classes": {
        name: sorted(entry for entry in dir(getattr(module, name)) if not entry.startswith("_"))
        for name in classes if hasattr(module, name)
    },
}))
"""


def introspect(wheel: Path) -> dict[str, object]:
    """Version, module names and class attributes of the bindings in an unpacked wheel."""
    return dict(json.loads(run_in(wheel, lambda module: ["-c", _DUMP, module, *CLASSES]).strip().splitlines()[-1]))


def run_in(wheel: Path, arguments: Callable[[str], list[str]]) -> str:
    """Output of Python where an unpacked wheel can be imported; `arguments` are of the name of its module."""
    extension = next(iter(sorted(wheel.glob("tensorrt*/tensorrt*.so"))))
    with tempfile.TemporaryDirectory() as folder:
        stubs = Path(folder)
        _write_stubs(sorted(extension.parent.glob("*.so*")), stubs)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(wheel), os.environ.get("PYTHONPATH")))),
            "LD_LIBRARY_PATH": f"{extension.parent}:{stubs}",
        }
        command = [sys.executable, *arguments(extension.parent.name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{wheel}: {done.stderr.strip()}")
    return done.stdout


def table(found: list[dict[str, object]]) -> dict[str, object]:
    """One entry a name: "Class.attribute" or "name" → a string of 0 and 1, one digit a version."""
    names: dict[str, list[str]] = {}
    for place, entry in enumerate(found):
        every = set(entry["module"])  # type: ignore[call-overload]
        for name, attributes in entry["classes"].items():  # type: ignore[attr-defined]
            every |= {f"{name}.{attribute}" for attribute in attributes}
        for name in every:
            names.setdefault(name, ["0"] * len(found))[place] = "1"
    return {
        "versions": [entry["version"] for entry in found],
        "names": {name: "".join(digits) for name, digits in sorted(names.items())},
    }


def _write_stubs(libraries: list[Path], out: Path) -> None:
    """A library for each one needed and absent, with the C functions that are left undefined."""
    here = {library.name for library in libraries}
    missing, plain, versioned = set(), set(), {}
    for library in libraries:
        for soname in re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("-d", library)):
            if soname not in here and re.match(r"lib(nv|cu)", soname):
                missing.add(soname)
        for line in _readelf("--dyn-syms", library).splitlines():
            fields = line.split()
            if len(fields) < 8 or fields[6] != "UND":
                continue
            name, _, version = fields[7].partition("@")
            if re.match(r"lib(cublas|cublasLt|cudnn)\.so", version.lstrip("@")):
                versioned.setdefault(version.lstrip("@"), set()).add(name)
            elif not version and re.match(r"(create|get|init|nv)\w+$", name):
                plain.add(name)
    for soname in missing:
        names = versioned.get(soname, set()) | (plain if soname.startswith("libnv") else set())
        source, script = out / "stub.c", out / "stub.map"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(names)), encoding="ascii")
        command = ["gcc", "-w", "-shared", "-fPIC", "-fno-builtin", str(source), "-o", str(out / soname)]
        command.append(f"-Wl,-soname,{soname}")
        if soname in versioned:
            script.write_text(f"{soname} {{ global: *; }};\n", encoding="ascii")
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, check=True)


def _readelf(what: str, library: Path) -> str:
    return subprocess.run(["readelf", "-W", what, str(library)], capture_output=True, text=True, check=True).stdout


def main() -> None:
    if sys.argv[1] == "--check":
        script = str(Path(__file__).with_name("bindings_check.py"))
        for wheel in sys.argv[2:]:
            print(run_in(Path(wheel), lambda module: [script, module]).strip())
        return
    out, *wheels = (Path(argument) for argument in sys.argv[1:])
    found = [introspect(wheel) for wheel in wheels]
    out.write_text(json.dumps(table(found), indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
