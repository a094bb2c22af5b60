"""Threads that share a set of models between all sources, and the order their results come back in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from edge.analyze import Analyzer
from edge.pipeline.job import Job

Work = Callable[[Analyzer, Job], Job]


class Workers:
    """As many threads as analyzers; with one analyzer the caller's own thread, so that nothing waits for anything.

    Jobs are begun in the order they come in. No source may have more than `ahead` frames at one stage, so that each
    source's turn comes after a bounded number of jobs of the others.
    """

    def __init__(self, analyzers: Sequence[Analyzer], wake: Callable[[], None] = lambda: None) -> None:
        """wake: called from a thread whenever a job is done."""
        self._free: SimpleQueue[Analyzer] = SimpleQueue()
        for analyzer in analyzers:
            self._free.put(analyzer)
        self._pool = ThreadPoolExecutor(len(analyzers), "edge") if len(analyzers) > 1 else None
        self._wake = wake
        self._lock = threading.Lock()
        self._threads = len(analyzers)
        self._unfinished = 0
        self.ahead = len(analyzers) if len(analyzers) > 1 else 0
        """Frames of one source that may be under way at one stage besides the next to be finished."""

    @property
    def idle(self) -> bool:
        """Whether a job given now is begun at once."""
        return self._unfinished < self._threads

    def submit(self, work: Work, job: Job) -> Future[Job]:
        """Runs `work` with an analyzer that nobody else uses meanwhile; what it raises, `result` raises."""
        if self._pool is not None:
            with self._lock:
                self._unfinished += 1
            future = self._pool.submit(self._with_analyzer, work, job)
            future.add_done_callback(self._finished)
            return future
        done: Future[Job] = Future()
        try:
            done.set_result(self._with_analyzer(work, job))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Waits for what runs, drops what has not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _with_analyzer(self, work: Work, job: Job) -> Job:
        analyzer = self._free.get()
        try:
            return work(analyzer, job)
        finally:
            self._free.put(analyzer)

    def _finished(self, _: Future[Job]) -> None:
        with self._lock:
            self._unfinished -= 1
        self._wake()


class Line:
    """Futures in the order of their frames."""

    def __init__(self, ahead: int, *, eager: bool) -> None:
        self._futures: deque[Future[Job]] = deque()
        self._ahead = ahead
        self._eager = eager

    def __len__(self) -> int:
        return len(self._futures)

    def put(self, future: Future[Job]) -> None:
        """Adds the next frame's."""
        self._futures.append(future)

    def take(self, *, all_of_them: bool = False) -> Future[Job] | None:
        """The first where it is time: more are under way than may be, or, eagerly, as soon as it is done.

        For files it depends on the count alone, never on which thread was quicker: two runs give the same.
        """
        if not self._futures:
            return None
        if all_of_them or len(self._futures) > self._ahead or (self._eager and self._futures[0].done()):
            return self._futures.popleft()
        return None
