"""From ONNX bytes to a plan. Where a quantised layer has no kernel, its Q/DQ come off and the build is tried again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.engines.tensorrt import api
from edge.engines.tensorrt.onnx_file import Node, OnnxFile
from edge.engines.tensorrt.options import Range, TensorRtOptions
from edge.errors import EngineError

SINGLY = 2
"""Depthwise convolutions without a kernel from which on none is expected to have one: each build takes minutes."""

_NO_KERNEL = re.compile(r"[Cc]ould not find any implementation for node (.+?)(?: due to |\.? ?\)?$|\. )")
_FOREIGN = re.compile(r"\{ForeignNode\[(.+?)\.\.\.(.+?)\]\}")
_BETWEEN_NAMES = re.compile(r" \+ |\|\||, |PWN\(")
_OF_TENSORRT = "Unnamed Layer*"
"""How layers are called that TensorRT put in itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A built plan. in_float: layers whose Q/DQ had to come off."""

    data: bytes
    seconds: float
    in_float: tuple[str, ...]


def build_plan(
    trt: Any,
    model: bytes,
    options: TensorRtOptions,
    timings: bytes = b"",
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[bytes], None] = lambda _: None,
) -> Plan:
    """Raises EngineError in one line, with TensorRT's own words, where no engine can be built.

    timings: the builder's timing cache of before. keep: is given what it is after each build, also one that failed.
    """
    start = time.monotonic()
    in_float: list[str] = []
    depthwise = 0
    # Each build that fails takes a layer off, at the least.
    for _ in range(max(1, len(OnnxFile(model).quantised_layers()))):
        file = OnnxFile(model)
        logger = api.logger_of(trt)
        before = logger.count
        data, timings = _attempt(trt, logger, model, file.precision, options, timings)
        keep(timings)
        if data is not None:
            return Plan(data, time.monotonic() - start, tuple(in_float))
        errors = logger.since(before)
        failing = layers_without_kernel(errors, file)
        if not failing:
            reason = errors[-1] if errors else "it does not say why"
            raise EngineError(f"TensorRT {trt.__version__} cannot build the engine: {reason}")
        depthwise += sum(node.is_depthwise for node in failing)
        others = [node for node in file.quantised_layers() if node.is_depthwise and node not in failing]
        along = others if depthwise >= SINGLY else []
        too = f", and with it all depthwise convolutions ({_listed(along)})" if along else ""
        say(f"TensorRT has no INT8 kernel for {_listed(failing)}: back in float{too}, building again")
        in_float += [_name(node) for node in (*failing, *along)]
        model = file.without_pairs([*failing, *along])
        if not OnnxFile(model).quantised_layers():
            break
    raise EngineError(
        f"TensorRT {trt.__version__} has an INT8 kernel for no layer of the model; use fp16 on this device"
    )


def _name(node: Node) -> str:
    return node.name or node.outputs[0]


def _listed(nodes: list[Node]) -> str:
    return ", ".join(map(_name, nodes))


def layers_without_kernel(errors: list[str], file: OnnxFile) -> list[Node]:
    """The quantised layers of a file that TensorRT's errors name as having no implementation.

    TensorRT names what it fused: "conv1.weight + QuantizeLinear_3 + conv1 + Relu_5", where the layer itself may be left
    out and only its Q/DQ be named, or "{ForeignNode[first...last]}" for everything between two nodes of any kind, where
    either end may be several names, a weight's or one of its own.
    """
    layers = file.quantised_layers()
    found: list[Node] = []
    for error in errors:
        match = _NO_KERNEL.search(error)
        if match is None:
            continue
        said = match.group(1)
        foreign = _FOREIGN.search(said)
        if foreign is not None:
            ends = [_places(file, name) for name in foreign.groups()]
            if all(ends):
                between = file.nodes[min(ends[0]) : max(ends[1]) + 1]
                found += [node for node in layers if node in between]
        else:
            parts = _parts(said)
            named = [node for node in layers if _is_named(node, parts)]
            found += named or [node for node in layers if any(_is_named(pair, parts) for pair in file.pairs_of(node))]
    return [node for node in layers if node in found]


def _parts(said: str) -> tuple[str, ...]:
    return tuple(part.strip("[]{}() ") for part in _BETWEEN_NAMES.split(said))


def _places(file: OnnxFile, end: str) -> list[int]:
    """Where in a file an end of a fused region may lie; empty where it names nothing there."""
    parts = _parts(end)
    named = [place for place, node in enumerate(file.nodes) if _is_named(node, parts)]
    taking = [place for place, node in enumerate(file.nodes) if not {*parts}.isdisjoint(node.inputs)]
    own = all(part.startswith(_OF_TENSORRT) for part in parts)
    return named or taking or ([0, len(file.nodes) - 1] if own else [])


def _is_named(node: Node, names: tuple[str, ...]) -> bool:
    """Parsers of different versions name a layer by its node, or a nameless node by what it gives."""
    mine = {name for output in node.outputs for name in (output, f"node_of_{output}")} | ({node.name} - {""})
    return any(name in mine or (name.startswith("node_of_") and name[8:] in mine) for name in names)


def _attempt(
    trt: Any, logger: Any, model: bytes, precision: str, options: TensorRtOptions, timings: bytes
) -> tuple[bytes | None, bytes]:
    """One build: the plan, None where there is none, and the timing cache as it is then."""
    builder = api.create_builder(trt)
    network = api.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reason = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EngineError(f"TensorRT {trt.__version__} cannot read the model: {' '.join(reason.split())}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    # So that the engine inspector can say which layer runs in which precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    api.set_precision(trt, config, precision)
    _add_profiles(builder, network, config, options)
    timing_cache = config.create_timing_cache(timings)
    if timing_cache is None or not config.set_timing_cache(timing_cache, False):
        timing_cache = config.create_timing_cache(b"")  # of another version or device
        config.set_timing_cache(timing_cache, False)
    with api.interruptible() as stopped:
        if not options.quiet:
            api.show_progress(trt, config, f"TensorRT {precision}", stopped)
        plan = builder.build_serialized_network(network, config)
    return (None if plan is None else bytes(plan)), bytes(timing_cache.serialize())


def _add_profiles(builder: Any, network: Any, config: Any, options: TensorRtOptions) -> None:
    """A profile for each range of shapes, so that a single face and a full batch each get kernels tuned for them."""
    ranges: dict[str, tuple[Range, ...]] = {}
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(size if size >= 0 else None for size in tensor.shape)
        if None in shape:
            ranges[tensor.name] = options.profile.ranges(tensor.name, shape)
    if len({len(each) for each in ranges.values()}) > 1:
        raise EngineError(f"inputs {', '.join(ranges)} vary in different ways, which no profile describes")
    for together in zip(*ranges.values(), strict=True):
        profile = builder.create_optimization_profile()
        for name, (low, best, high) in zip(ranges, together, strict=True):
            profile.set_shape(name, low, best, high)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"TensorRT refuses the shapes {options.profile}; see the model's inputs")
