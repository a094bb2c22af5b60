"""A gallery on the GPU: its vectors go up once and again when they change, and who is nearest comes down.

What is searched lies in one matrix: the vectors of the gallery's copy, those that came since, the negatives. A search
gives the best group of each, which says more of less than the best rows would: forty photos of one person are one
entry, and a negative stands beside what it takes back (`edge.shortlist`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np

from edge.cuda.driver import free_memory
from edge.cuda.kernels import MAX_DIMENSIONS, TOP, DeviceVectors, Kernels, SearchMemory
from edge.cuda.protocol import CudaDevice, DeviceMemory, DevicePart, PinnedMemory, Stream
from edge.errors import EngineError
from edge.gallery import Snapshot
from edge.gallery.snapshot import Positions
from edge.shortlist import Groups, Shortlist
from edge.types import Floats

SHARE = 0.5
"""Of the GPU's memory that is free once the models are open: so much may the gallery take."""

ROOM = 1024
"""Vectors that may come before memory is taken anew."""

WORTH_A_TRIP = 2000
"""Vectors from which evidence of a track, which lies on the host, is searched for on the GPU. Below, the CPU has read
them in about the time that a few calls of the driver take; that time was not measured.
"""

_MOST_PROBES = 64
_CHUNK = 8 << 20
_LOG = logging.getLogger(__name__)


class SearchLane:
    """Where one stream's searches put what they found. One search at a time."""

    def __init__(self, device: CudaDevice, stream: Stream, most: int) -> None:
        """most: probes of a search."""
        self.stream, self.most = stream, most
        self.used = False
        self._device, self._held = device, ExitStack()
        with ExitStack() as undo:
            undo.callback(self.free)
            self.memory = SearchMemory.on(device, most)
            self._held.callback(self.memory.free)
            self.done = device.event()
            self._held.callback(self.done.close)
            self._scores, self._groups = self._pinned(4 * TOP * most), self._pinned(4 * TOP * most)
            undo.pop_all()

    def fetch(self, count: int) -> None:
        """Queues what was found on its way down."""
        size = 4 * TOP * count
        self._device.copy_out(self._scores, self.memory.scores, size, self.stream)
        self._device.copy_out(self._groups, self.memory.groups, size, self.stream)

    def shortlist(self, count: int) -> Shortlist:
        """What came down; once the stream has come so far."""
        size = 4 * TOP * count
        scores = self._scores.array[:size].view(np.float32).reshape(count, TOP).copy()
        return Shortlist(self._groups.array[:size].view(np.int32).reshape(count, TOP).copy(), scores)

    def free(self) -> None:
        """Gives the memory back."""
        self._held.close()

    def _pinned(self, size: int) -> PinnedMemory:
        memory = self._device.alloc_pinned(size)
        self._held.callback(memory.free)
        return memory


class GpuGallery:
    """A gallery's vectors on a GPU. A context manager.

    `hold`, `lane` and `close` belong to the thread that made it, `queue` to any. why_not: why the CPU has to search,
    in one line; empty while it has not.
    """

    def __init__(self, device: CudaDevice, dimensions: int, most_bytes: int | None = None) -> None:
        """most_bytes: of the GPU's memory; None for `SHARE` of what is free. Raises EngineError."""
        device.activate()
        self.why_not = ""
        self._device, self._dimensions = device, dimensions
        self._kernels = Kernels(device)
        self._most = int(SHARE * free_memory()) if most_bytes is None else most_bytes
        self._held = ExitStack()
        self._lanes: list[SearchLane] = []
        with ExitStack() as undo:
            undo.callback(self._held.close)
            self._stream = device.stream()
            self._held.callback(self._stream.close)
            self._staging = device.alloc_pinned(_CHUNK)
            self._held.callback(self._staging.free)
            self._probes_host = device.alloc_pinned(4 * dimensions * _MOST_PROBES)
            self._held.callback(self._probes_host.free)
            self._probes = device.alloc(4 * dimensions * _MOST_PROBES)
            self._held.callback(self._probes.free)
            self._own = self.lane(self._stream, _MOST_PROBES)
            undo.pop_all()
        self._vectors: DeviceMemory | None = None
        self._owners: DeviceMemory | None = None
        self._capacity = 0
        self._base: tuple[Floats, Positions] | None = None
        self._lock = threading.Lock()
        self._searched: Snapshot | None = None
        self._there = DeviceVectors(0, 0, dimensions)
        self._asked: Snapshot | None = None
        self._given: Snapshot | None = None

    def reader(self, read: Callable[[], Snapshot]) -> Callable[[], Snapshot]:
        """Gives what `read` gives, held here."""
        return lambda: self.hold(read())

    def hold(self, snapshot: Snapshot) -> Snapshot:
        """Brings a snapshot up where it is not the one held; gives it with its finder.

        Without one where the GPU does not hold it, which the log says once, or where the trip is not worth it.
        """
        if self._given is None or self._asked is not snapshot:
            self._asked, self._given = snapshot, self._bring_up(snapshot)
        return self._given

    def lane(self, stream: Stream, most: int) -> SearchLane:
        """For searches of up to `most` probes on a stream; freed with the gallery."""
        self._lanes.append(made := SearchLane(self._device, stream, most))
        return made

    def queue(self, lane: SearchLane, probes: int, count: int, *, normalise: bool = True) -> Snapshot | None:
        """Queues the search for `count` vectors at an address, which are brought to unit length where they lie.

        Gives the snapshot that is searched; None, and nothing is queued, where there is none. Raises EngineError.
        """
        with self._lock:
            # A change of the gallery waits for what is queued here, and for nothing else.
            if self._searched is None or count > lane.most:
                return None
            if normalise:
                self._kernels.normalise(probes, count, self._dimensions, lane.stream)
            self._kernels.search(self._there, probes, count, lane.memory, lane.stream)
            lane.fetch(count)
            lane.done.record(lane.stream)
            lane.used = True
            return self._searched

    def describe(self) -> dict[str, str]:
        """Where faces are matched, for the summary."""
        return {"match": f"cpu: {self.why_not}" if self.why_not else "gpu"}

    def close(self) -> None:
        """Gives everything back; calling it again does nothing. Before the sessions whose streams have lanes here."""
        self._device.activate()
        with self._lock:
            self._wait()
            self._let_go()
        for lane in self._lanes:
            lane.free()
        self._lanes.clear()
        self._held.close()

    def __enter__(self) -> GpuGallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bring_up(self, snapshot: Snapshot) -> Snapshot:
        self._device.activate()
        rows = _rows_of(snapshot)
        why = self._refusal(rows)
        with self._lock:
            self._searched = None
            try:
                self._wait()
                if why:
                    self._let_go()
                elif rows:
                    self._copy(snapshot, rows)
                    self._searched = snapshot
            except EngineError as error:
                why = str(error)
        if why and not self.why_not:
            _LOG.warning("matching on the CPU: %s", why)
        elif self.why_not and not why:
            _LOG.warning("matching on the GPU again")
        self.why_not = why
        held = self._searched is not None
        return replace(snapshot, finder=_Finder(self, snapshot)) if held and rows >= WORTH_A_TRIP else snapshot

    def _refusal(self, rows: int) -> str:
        if self._dimensions > MAX_DIMENSIONS:
            return f"embeddings have {self._dimensions} numbers, and the kernels take {MAX_DIMENSIONS}"
        if (needed := rows * self._row_bytes) > self._most:
            megabytes = f"{needed / 1e6:,.0f} MB of the GPU's memory, and {self._most / 1e6:,.0f} may be used"
            return f"{rows:,} vectors take {megabytes}"
        return ""

    @property
    def _row_bytes(self) -> int:
        return 4 * self._dimensions + 4

    def _copy(self, snapshot: Snapshot, rows: int) -> None:
        """The snapshot into the device's memory; what is there already of its copy stays."""
        base = (snapshot.vectors, snapshot.starts)
        there = self._base is not None and all(a is b for a, b in zip(self._base, base, strict=True))
        if rows > self._capacity:
            self._let_go()
            there = False
            # No more than may be used, but what is to go up has been found to fit.
            capacity = max(rows, min(rows + ROOM, self._most // self._row_bytes))
            self._vectors = self._device.alloc(4 * self._dimensions * capacity)
            self._owners = self._device.alloc(4 * capacity)
            self._capacity = capacity
        self._base = None
        at = len(snapshot.vectors)
        if not there and at:
            counts = np.diff(np.append(snapshot.starts, at))
            places = np.repeat(np.arange(len(snapshot.starts), dtype=np.int32), counts)
            self._write(0, snapshot.vectors, 2 * places)
        for loose, negative in ((snapshot.late, 0), (snapshot.negatives, 1)):
            if loose is not None and len(loose.vectors):
                self._write(at, loose.vectors, (2 * loose.owners + negative).astype(np.int32))
                at += len(loose.vectors)
        assert self._vectors is not None
        assert self._owners is not None
        self._there = DeviceVectors(self._vectors.address, rows, self._dimensions, self._owners.address)
        self._base = base

    def _write(self, row: int, vectors: Floats, groups: Groups) -> None:
        assert self._vectors is not None
        assert self._owners is not None
        self._upload(self._vectors.address + 4 * self._dimensions * row, vectors)
        self._upload(self._owners.address + 4 * row, groups)

    def _upload(self, address: int, array: Floats | Groups) -> None:
        """Rows to the device, a chunk at a time: vectors may be mapped from a file that is larger than memory."""
        row = array[:1].nbytes
        step = max(1, _CHUNK // row)
        for first in range(0, len(array), step):
            raw = np.ascontiguousarray(array[first : first + step]).view(np.uint8).reshape(-1)
            self._staging.array[: raw.size] = raw
            part = DevicePart(address + row * first, raw.size)
            self._device.copy_in(part, self._staging, raw.size, self._stream)
            self._stream.synchronize()

    def _wait(self) -> None:
        """For the searches that are queued: by marks, as a stream that records a graph must not be waited for."""
        for lane in self._lanes:
            if lane.used:
                lane.done.synchronize()

    def _let_go(self) -> None:
        self._searched, self._base, self._capacity = None, None, 0
        for memory in (self._vectors, self._owners):
            if memory is not None:
                memory.free()
        self._vectors = self._owners = None

    def _find(self, snapshot: Snapshot, probes: Floats) -> Shortlist | None:
        if self._searched is not snapshot:
            return None
        self._device.activate()
        lists = [self._find_some(snapshot, probes[i : i + _MOST_PROBES]) for i in range(0, len(probes), _MOST_PROBES)]
        there = [each for each in lists if each is not None]
        if not there or len(there) < len(lists):
            return None
        return Shortlist(np.concatenate([e.groups for e in there]), np.concatenate([e.scores for e in there]))

    def _find_some(self, snapshot: Snapshot, probes: Floats) -> Shortlist | None:
        raw = np.ascontiguousarray(probes, np.float32).view(np.uint8).reshape(-1)
        self._probes_host.array[: raw.size] = raw
        self._device.copy_in(self._probes, self._probes_host, raw.size, self._stream)
        # A track's evidence is shorter than a unit vector, and meant to be.
        if self.queue(self._own, self._probes.address, len(probes), normalise=False) is not snapshot:
            return None  # another one took its place in between
        self._stream.synchronize()
        return self._own.shortlist(len(probes))


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds in one snapshot, as long as it is the one on the GPU."""

    gallery: GpuGallery
    snapshot: Snapshot

    def find(self, probes: Floats) -> Shortlist | None:
        return self.gallery._find(self.snapshot, probes)


def _rows_of(snapshot: Snapshot) -> int:
    loose: Sequence[Floats] = [each.vectors for each in (snapshot.late, snapshot.negatives) if each is not None]
    return len(snapshot.vectors) + sum(map(len, loose))
