"""What would make every time a lie: a debug build or a tracer. The first is refused, the second stands as a warning."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Mapping

from edge.errors import EngineError


def refuse_debug(builds: Mapping[str, str] | None = None) -> None:
    """Raises EngineError where the interpreter or a library that does the work was built for debugging.

    builds: what each part says of its build; read from this process where it is None.
    """
    for part, said in (builds if builds is not None else read_builds()).items():
        if re.search(r"debug", said, re.IGNORECASE):
            raise EngineError(
                f"{part} is a debug build ({said}): its times mean nothing; install the release build and measure again"
            )


def read_builds() -> dict[str, str]:
    """Part → the type of its build, of the parts that are loaded or always there."""
    builds = {"Python": "debug" if sysconfig.get_config_var("Py_DEBUG") else "release"}
    import cv2

    if found := re.search(r"Configuration:\s*(\S+)", cv2.getBuildInformation()):
        builds["OpenCV"] = found.group(1)
    import onnxruntime as ort

    if hasattr(ort, "get_build_info") and (found := re.search(r"build type=(\w+)", ort.get_build_info())):
        builds["ONNX Runtime"] = found.group(1)
    return builds


def tracer_warning() -> str | None:
    """A sentence where a debugger, a profiler or a coverage tool watches this process."""
    if not (sys.gettrace() or sys.getprofile() or _monitored()):
        return None
    return "A debugger, profiler or coverage tool watches this process: its times are too high. Measure without it."


def _monitored() -> bool:
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    return monitoring is not None and any(monitoring.get_tool(i) for i in range(6))
