"""Worker processes of this machine. One that dies takes no picture with it but the one that kills it."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from edge.errors import EdgeError, EngineError
from edge.indexing.jobs import Job
from edge.indexing.work import Result, Worker, WorkOptions

_worker: Worker | EdgeError | None = None
"""Of this process. What kept it from opening its models is told by the first work it gets: a pool would only break."""


class LocalEngine:
    """See `edge.indexing.indexing.Engine`."""

    def __init__(self, options: WorkOptions, workers: int) -> None:
        self._options = options
        self._workers = workers

    def run(self, chunks: Iterable[Sequence[Job]]) -> Iterator[list[Result]]:
        left = deque(chunks)
        suspects: deque[Sequence[Job]] = deque()
        while left or suspects:
            # After a crash those that were under way are tried one after another, to find the picture at fault.
            queue, ahead = (suspects, 1) if suspects else (left, 2 * self._workers)
            lost = yield from self._drain(queue, ahead)
            for chunk in lost:
                if len(lost) > 1:
                    suspects.append(chunk)
                elif len(chunk) > 1:
                    middle = len(chunk) // 2
                    suspects += [chunk[:middle], chunk[middle:]]
                else:
                    yield [Result(chunk[0], problem="a worker process died of it; look at it with: edge embed")]

    def _drain(self, queue: deque[Sequence[Job]], ahead: int) -> Generator[list[Result], None, list[Sequence[Job]]]:
        """Works the queue off, `ahead` at a time; ends early, giving the chunks lost, when a process dies."""
        workers = min(self._workers, ahead)
        spawning = multiprocessing.get_context("spawn")
        running: dict[Future[list[Result]], Sequence[Job]] = {}
        with ProcessPoolExecutor(workers, spawning, _open_worker, (self._options,)) as pool:
            try:
                while queue or running:
                    while queue and len(running) < ahead:
                        chunk = queue.popleft()
                        running[pool.submit(_work, chunk)] = chunk
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield future.result()
                        del running[future]
            except BrokenProcessPool:
                return list(running.values())
        return []


def _open_worker(options: WorkOptions) -> None:
    global _worker
    # Ctrl-C reaches every process of the terminal; the parent ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _worker = Worker(options)
    except EdgeError as error:
        _worker = error


def _work(jobs: Sequence[Job]) -> list[Result]:
    assert _worker is not None
    if isinstance(_worker, EdgeError):
        raise EngineError(str(_worker))
    return _worker(jobs)
