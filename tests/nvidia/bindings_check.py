"""Our version layer on the real bindings of one TensorRT version, as far as that goes without a GPU.

`introspect_tensorrt.py --check DIR …` runs it in each unpacked wheel, with the Python the wheels are for; that needs
numpy, OpenCV and tqdm. Nothing of TensorRT is built or run: what derives from its classes is made and called, and the
flags are those that a builder would be given.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from edge.engines.tensorrt import api


class Recorded:
    """Stands for a builder, its configuration and a context: they keep what they are given."""

    profiler: Any = None
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.on: list[str] = []
        self.off: list[str] = []

    def create_network(self, flags: int) -> int:
        return flags

    def set_flag(self, flag: Any) -> None:
        self.on.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.off.append(flag.name)


def check(trt: Any) -> str:
    """Raises AssertionError, or whatever the bindings raise, where they do not bear what we do with them."""
    logger = api.logger_of(trt)
    assert logger is api.logger_of(trt)
    before = logger.count
    logger.log(trt.ILogger.ERROR, "two\n lines")
    logger.log(trt.ILogger.WARNING, "a warning")
    logger.log(trt.ILogger.INFO, "nothing much")
    assert (logger.since(before), logger.since(logger.count)) == (["two lines"], [])
    assert (logger.why, logger.said) == ("two lines", "a warning")
    given = Recorded()
    times = api.time_layers(trt, given)
    given.profiler.report_layer_time("conv", 1.5)
    assert times == {"conv": [1.5]}
    pressed: list[bool] = []
    api.show_progress(trt, given, "build", lambda: bool(pressed))
    if (monitor := given.progress_monitor) is not None:
        monitor.phase_start("outer", None, 2)
        monitor.phase_start("inner", "outer", 1)
        monitor.phase_finish("inner")
        assert monitor.step_complete("outer", 0) is True
        pressed.append(True)
        assert monitor.step_complete("outer", 1) is False
        monitor.phase_finish("outer")
    strong = api.carries_precision(trt)
    flags = trt.NetworkDefinitionCreationFlag
    wanted = flags.STRONGLY_TYPED if strong else flags.EXPLICIT_BATCH
    assert api.create_network(trt, given) == 1 << int(wanted)
    for precision, flagged in (("fp32", []), ("fp16", ["FP16"]), ("int8", ["FP16", "INT8"])):
        config = Recorded()
        api.set_precision(trt, config, precision)
        assert config.off == ["TF32"]
        assert config.on == ([] if strong else flagged)
    for name in ("FLOAT", "HALF", "INT8", "INT32", "UINT8", "BOOL"):
        assert getattr(trt.DataType, name).name == name, "types are known by their names"
        assert name in api.DTYPES
    assert strong == (int(trt.__version__.split(".")[0]) >= 10)
    assert (monitor is not None) == strong
    return f"{trt.__version__} holds"


if __name__ == "__main__":
    print(check(import_module(sys.argv[1])))
