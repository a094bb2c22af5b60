from __future__ import annotations

import sys

import pytest

from benchmarks.honesty import read_builds, refuse_debug, tracer_warning
from edge.errors import EngineError


def test_this_machine_has_release_builds_and_says_so() -> None:
    builds = read_builds()
    assert {"Python", "OpenCV", "ONNX Runtime"} <= set(builds)
    refuse_debug()


@pytest.mark.parametrize(
    ("part", "said"), [("Python", "debug"), ("OpenCV", "Debug"), ("ONNX Runtime", "RelWithDebug"), ("ours", "DEBUG")]
)
def test_a_debug_build_is_refused_by_name(part: str, said: str) -> None:
    with pytest.raises(EngineError, match=f"{part} is a debug build .*install the release build") as caught:
        refuse_debug({"numpy": "release", part: said})
    assert caught.value.exit_code == 2
    refuse_debug({"numpy": "release", "OpenCV": "Release"})


def test_a_debugger_or_profiler_is_warned_of() -> None:
    before = sys.getprofile()
    sys.setprofile(lambda *_: None)
    try:
        warning = tracer_warning()
    finally:
        sys.setprofile(before)
    assert warning is not None
    assert "times are too high" in warning
    if sys.gettrace() is None and before is None and not hasattr(sys, "monitoring"):
        assert tracer_warning() is None
