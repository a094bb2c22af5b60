"""Running an engine: pinned buffers, one stream, and for each shape a context with its CUDA graph.

A shape seen the first time sets up a context and runs plainly, which TensorRT asks for before a capture; the second
time the copies and the engine's work are recorded; from then on a run is one call. Buffers are for the largest shape
from the start, so that nothing is allocated later. All contexts of a session work in the same device memory, one after
the other on one stream. Before TensorRT 10 there is one context for each range of shapes (`Profile`), and a new shape
of a range drops the graph of the one before.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.cuda.graphs import Recorded
from edge.cuda.protocol import CudaDevice, DeviceMemory, PinnedMemory, Stream
from edge.engines.base import Array, Session, TensorSpec
from edge.engines.tensorrt import api
from edge.errors import EngineError

MOST_SHAPES = 16
"""Contexts a session keeps; the one unused for longest makes room."""

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
Ranges = tuple[tuple[tuple[Shape, Shape], ...], ...]
"""For each of an engine's profiles the smallest and the largest shape of each input."""


class LoadedPlan:
    """A deserialised engine, from which sessions are opened: one a stream."""

    def __init__(self, trt: Any, device: CudaDevice, plan: bytes) -> None:
        """Raises EngineError where TensorRT refuses the plan. Only for a plan whose passport was checked."""
        self.trt = trt
        self.device = device
        self._again = None if api.contexts_share_profiles(trt) else plan
        self._in_use = 0
        device.activate()
        self._runtime = api.create_runtime(trt)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            why = api.logger_of(trt).why
            raise EngineError(f"TensorRT {trt.__version__} refuses the plan: {why}; delete it to have it built again")

    def open(self, facts: Mapping[str, str]) -> TensorRtSession:
        """A session of its own stream and memory. facts: for `describe`.

        Before TensorRT 10 contexts may not share an engine's profiles, so that each session that is open besides others
        has the plan deserialised again, with its own copy of the weights on the device.
        """
        if self._in_use and self._again is not None:
            return LoadedPlan(self.trt, self.device, self._again).open(facts)
        return TensorRtSession(self, facts)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While a session is open on this very engine."""
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1

    def specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs."""
        trt, engine = self.trt, self.engine
        found: dict[bool, list[TensorSpec]] = {True: [], False: []}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            shape = tuple(size if size >= 0 else None for size in engine.get_tensor_shape(name))
            spec = TensorSpec(name, api.dtype_of(engine, name), shape)
            found[engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT].append(spec)
        return tuple(found[True]), tuple(found[False])

    def ranges(self, inputs: tuple[TensorSpec, ...]) -> Ranges:
        """For each profile smallest and largest shape of each input."""
        found = []
        for profile in range(self.engine.num_optimization_profiles):
            ends = []
            for spec in inputs:
                if None in spec.shape:
                    low, _, high = self.engine.get_tensor_profile_shape(spec.name, profile)
                    ends.append((tuple(low), tuple(high)))
                else:
                    fixed = tuple(size or 0 for size in spec.shape)
                    ends.append((fixed, fixed))
            found.append(tuple(ends))
        return tuple(found)


class Buffer:
    """A tensor's memory on host and device, for shapes of up to `most` bytes."""

    def __init__(self, device: CudaDevice, spec: TensorSpec, most: tuple[int, ...]) -> None:
        self._dtype = np.dtype(spec.dtype)
        with ExitStack() as undo:
            self.memory: DeviceMemory = device.alloc(max(self.size(most), 1))
            undo.callback(self.memory.free)
            self.pinned: PinnedMemory = device.alloc_pinned(max(self.size(most), 1))
            undo.pop_all()

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a shape."""
        return math.prod(shape) * self._dtype.itemsize

    def host(self, shape: tuple[int, ...]) -> Array:
        """The pinned memory as an array."""
        view: Array = self.pinned.array[: self.size(shape)].view(self._dtype).reshape(shape)
        return view

    def free(self) -> None:
        """Gives the memory back."""
        self.pinned.free()
        self.memory.free()


@dataclass(slots=True)
class Prepared:
    """What one combination of input shapes needs: a context set up for it, all shapes, and a whole run.

    profile: the range of shapes it is in, whose kernels it runs. taken, given: inputs and outputs in pinned memory.
    """

    context: Any
    profile: int
    inputs: Shapes
    outputs: Shapes
    run: Recorded
    taken: tuple[Array, ...]
    given: tuple[Array, ...]


class TensorRtSession(Session):
    """An engine on one stream. One thread at a time."""

    def __init__(self, plan: LoadedPlan, facts: Mapping[str, str]) -> None:
        super().__init__()
        self._plan, self._facts = plan, dict(facts)
        self._device = plan.device
        self._device.activate()
        self.inputs, self.outputs = plan.specs()
        self._shapes: OrderedDict[Shapes, Prepared] = OrderedDict()
        self._ranges = self._plan.ranges(self.inputs)
        self.largest_batch = self.range_of(self.inputs[0])[1][0]
        self._spare: list[tuple[Any, int]] = []
        self._buffers: dict[str, Buffer] = {}
        self._held = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._held.close)
            self._held.enter_context(plan.in_use())
            self.stream: Stream = self._device.stream()
            self._held.callback(self.stream.close)
            self._work: DeviceMemory = self._device.alloc(max(api.device_memory_size(plan.engine), 1))
            self._held.callback(self._work.free)
            largest = tuple(self.range_of(spec)[1] for spec in self.inputs)
            last = len(self._ranges) - 1
            context = self._new_context(last)
            every = (*largest, *self._set_shapes(context, largest))
            for spec, shape in zip((*self.inputs, *self.outputs), every, strict=True):
                self._buffers[spec.name] = buffer = Buffer(self._device, spec, shape)
                self._held.callback(buffer.free)
            undo.pop_all()
        self._spare = [(context, last)]

    def describe(self) -> dict[str, str]:
        graphs = sum(prepared.run.is_graph for prepared in self._shapes.values())
        without = sorted({prepared.run.graphless for prepared in self._shapes.values()} - {""})
        return {**self._facts, "graphs": str(graphs), **({"without graph": "; ".join(without)} if without else {})}

    def prepare(self, shapes: Shapes) -> Prepared:
        """A context set up for these input shapes, in the order of `inputs`. Raises EngineError outside the profile."""
        if (ready := self._shapes.get(shapes)) is not None:
            self._shapes.move_to_end(shapes)
            return ready
        profile = self._profile_of(shapes)
        context = self._free_context(profile)
        outputs = self._set_shapes(context, shapes)
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.memory.address)
        run = Recorded(self.stream, lambda: self._queue(context, shapes, outputs))
        taken, given = self._pinned(self.inputs, shapes), self._pinned(self.outputs, outputs)
        self._shapes[shapes] = prepared = Prepared(context, profile, shapes, outputs, run, taken, given)
        return prepared

    @property
    def largest_batches(self) -> tuple[int, ...]:
        """The largest batch of each range of shapes."""
        return tuple(ranges[0][1][0] for ranges in self._ranges)

    @property
    def device(self) -> CudaDevice:
        """The GPU it runs on."""
        return self._device

    def memory_of(self, name: str) -> DeviceMemory:
        """Where the device keeps an input or output: the same for every shape, as long as the session is open."""
        return self._buffers[name].memory

    def enqueue(self, prepared: Prepared) -> None:
        """Queues the engine's work alone, on buffers that are on the device already. Raises EngineError."""
        self._execute(prepared.context)

    def layer_times(self, shapes: Shapes, runs: int) -> dict[str, float]:
        """Median milliseconds of each layer over `runs` on what the buffers hold. For a session that is closed next:
        its context waits for every layer from then on.
        """
        self._device.activate()
        prepared = self.prepare(shapes)
        self.enqueue(prepared)  # the first run sets the context up
        self.stream.synchronize()
        times = api.time_layers(self._plan.trt, prepared.context)
        for _ in range(runs):
            self.enqueue(prepared)
            self.stream.synchronize()
        return {name: float(np.median(values)) for name, values in times.items()}

    def inspect(self) -> tuple[str, ...]:
        """What TensorRT's inspector says of every layer, JSON, its kernel and precision among it: a text for each range
        of shapes, at its largest. Of an engine alone whose shapes vary it tells no formats. Raises EngineError.
        """
        self._device.activate()
        inspector = self._plan.engine.create_engine_inspector()
        found = []
        for ends in self._ranges:
            inspector.execution_context = self.prepare(tuple(high for _, high in ends)).context
            found.append(str(inspector.get_engine_information(self._plan.trt.LayerInformationFormat.JSON)))
        return tuple(found)

    @property
    def _why(self) -> str:
        return str(api.logger_of(self._plan.trt).why)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self.stream.handle):
            raise EngineError(f"TensorRT could not start the engine: {self._why}; see edge doctor")

    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        self._device.activate()
        arrays = [batch[spec.name] for spec in self.inputs]
        prepared = self.prepare(tuple([array.shape for array in arrays]))
        for pinned, array in zip(prepared.taken, arrays, strict=True):
            pinned[...] = array
        prepared.run.start()
        self.stream.synchronize()
        # The buffers are written again by the next run; what leaves here must not change.
        return {spec.name: pinned.copy() for spec, pinned in zip(self.outputs, prepared.given, strict=True)}

    def _pinned(self, specs: tuple[TensorSpec, ...], shapes: Shapes) -> tuple[Array, ...]:
        return tuple(self._buffers[spec.name].host(shape) for spec, shape in zip(specs, shapes, strict=True))

    def _queue(self, context: Any, inputs: Shapes, outputs: Shapes) -> None:
        """Inputs up, the engine, outputs down."""
        for spec, shape in zip(self.inputs, inputs, strict=True):
            buffer = self._buffers[spec.name]
            self._device.copy_in(buffer.memory, buffer.pinned, buffer.size(shape), self.stream)
        self._execute(context)
        for spec, shape in zip(self.outputs, outputs, strict=True):
            buffer = self._buffers[spec.name]
            self._device.copy_out(buffer.pinned, buffer.memory, buffer.size(shape), self.stream)

    def _profile_of(self, shapes: Shapes) -> int:
        """Which range of shapes these are in. Raises EngineError outside all of them."""
        for profile, ranges in enumerate(self._ranges):
            if all(_within(shape, *ends) for shape, ends in zip(shapes, ranges, strict=True)):
                return profile
        for spec, shape in zip(self.inputs, shapes, strict=True):
            low, high = self.range_of(spec)
            if not _within(shape, low, high):
                raise EngineError(f"input {spec.name} is {shape}; this engine was built for {low} to {high}")
        raise EngineError(f"inputs of {shapes} are in no range that this engine was built for: {self._ranges}")

    def _new_context(self, profile: int) -> Any:
        context = api.create_bare_context(self._plan.trt, self._plan.engine)
        api.give_memory(context, self._work.address, self._work.size)
        self._choose(context, profile)
        return context

    def _choose(self, context: Any, profile: int) -> None:
        # The first context has profile 0 from the start, others have none.
        if context.active_optimization_profile == profile:
            return
        if not context.set_optimization_profile_async(profile, self.stream.handle):
            raise EngineError(f"TensorRT refuses the engine's profile {profile}: {self._why}; see edge doctor")

    def _free_context(self, profile: int) -> Any:
        """A context of this profile in no use: one left over, a new one where there may be more, else the oldest's."""
        sharing = api.contexts_share_profiles(self._plan.trt)
        for place, (context, of) in enumerate(self._spare):
            if sharing or of == profile:
                del self._spare[place]
                self._choose(context, profile)
                return context
        rivals = [shapes for shapes, prepared in self._shapes.items() if sharing or prepared.profile == profile]
        if len(rivals) < (MOST_SHAPES if sharing else 1):
            return self._new_context(profile)
        context = self._drop(rivals[0])
        self._choose(context, profile)
        return context

    def _set_shapes(self, context: Any, shapes: Shapes) -> Shapes:
        """Sets the inputs' shapes, gives the outputs'. Raises EngineError."""
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(spec.name, shape):
                raise EngineError(f"TensorRT refuses input {spec.name} of {shape}: {self._why}; see edge doctor")
        found = tuple(tuple(context.get_tensor_shape(spec.name)) for spec in self.outputs)
        if any(size < 0 for shape in found for size in shape):
            # Not known before it runs, or an error of the context: memory of such a size would be too little.
            raise EngineError(f"TensorRT does not say how large outputs are for inputs of {shapes}: {found}")
        return found

    def range_of(self, spec: TensorSpec) -> tuple[Shape, Shape]:
        """Smallest and largest shape of an input."""
        place = self.inputs.index(spec)
        low, high = zip(*(ranges[place] for ranges in self._ranges), strict=True)
        return tuple(map(min, *low, low[0])), tuple(map(max, *high, high[0]))

    def _drop(self, shapes: Shapes) -> Any:
        """Forgets a shape; gives its context for another."""
        prepared = self._shapes.pop(shapes)
        prepared.run.close()
        return prepared.context

    def _close_impl(self) -> None:
        self._device.activate()
        try:
            self.stream.synchronize()
        finally:  # a stream whose work failed is given back all the same
            self._spare.clear()
            for known in list(self._shapes):
                self._drop(known)
            self._held.close()


def _within(shape: Shape, low: Shape, high: Shape) -> bool:
    return all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))
