"""A Ray cluster: Ray Data carries pictures' names to actors that each hold the models, and results back.

Every machine of the cluster needs arcedge, the bundle and the pictures under the same paths. Where a machine is lost,
Ray runs its part again on others; a result that comes twice is taken once, by the gallery.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import EngineError, InputError, MissingExtraError
from edge.indexing.jobs import Job
from edge.indexing.work import Result, Worker, WorkOptions

ANSWER_SECONDS = 5.0
"""A cluster that takes longer to answer is not there. Ray itself tries for ten minutes and more."""


class RayEngine:
    """See `edge.indexing.indexing.Engine`.

    workers: actors with a core each, at most; None for as many as the cluster has cores. address: of the cluster; None
    for the one RAY_ADDRESS names or that was started on this machine, else one of this process's own.
    """

    def __init__(self, options: WorkOptions, workers: int | None = None, address: str | None = None) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error
        self._ray: Any = ray
        self._options = options
        self._workers = workers
        self._address = address

    def run(self, chunks: Iterable[Sequence[Job]]) -> Iterator[list[Result]]:
        ray = self._ray
        items = [{"jobs": pickle.dumps(list(chunk))} for chunk in chunks]
        if not items:
            return
        ours = not ray.is_initialized()
        if ours:
            self._connect()
        # Ours is the progress that is shown; theirs would be a dozen lines every ten seconds.
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            # One item is a chunk of pictures: small blocks are what a lost machine costs.
            done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                _Actor,
                fn_constructor_args=(self._options,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self._workers or self._cores()),
                num_cpus=1,
            )
            for row in done.iter_rows():
                # What our own actors have pickled.
                yield pickle.loads(row["results"])  # noqa: S301
        except ray.exceptions.RayError as error:
            raise EngineError(f"Ray: {str(error).strip().splitlines()[-1]}") from error
        finally:
            if ours:
                ray.shutdown()

    def _connect(self) -> None:
        address = self._cluster()
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if address == "local":
                raise EngineError(
                    f"Ray: this machine's own cluster did not start ({reason}); give --address of one that runs, or "
                    "index without --on ray"
                ) from error
            wanted = self._wanted()
            # What stands for "auto", or for no address, is news to the user.
            named = address if wanted == address else f"{address}, noted on this machine (--address {wanted or 'auto'})"
            raise EngineError(f"Ray: no cluster at {named} ({reason}); start one with: ray start --head") from error

    def _wanted(self) -> str | None:
        """The address as the user gave it; None where there is none. Raises InputError for an empty one."""
        if self._address is not None and not self._address.strip():
            raise InputError("--address is empty; give HOST:PORT or auto, or leave it out")
        return self._address or os.environ.get("RAY_ADDRESS") or None

    def _cluster(self) -> str:
        """Its address, where something answers, or "local" for one of our own. Raises EngineError or InputError."""
        wanted = self._wanted()
        if wanted in (None, "auto"):
            running = _started_here()
            if running is not None and _answers(running):
                return running
            if wanted is None:
                return "local"
            raise EngineError("Ray: no cluster runs on this machine; start one with: ray start --head")
        if wanted != "local" and not _answers(wanted):
            raise EngineError(f"Ray: nothing answers at {wanted}; start a cluster with: ray start --head")
        return wanted

    def _cores(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))


def _started_here() -> str | None:
    """Address of the cluster that `ray start` has noted on this machine, which may be gone since."""
    noted = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        return noted.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT or ray://HOST:PORT."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


class _Actor:
    """A worker on some machine of the cluster."""

    def __init__(self, options: WorkOptions) -> None:
        self._worker = Worker(options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = [pickle.dumps(self._worker(pickle.loads(jobs))) for jobs in batch["jobs"]]  # noqa: S301
        return {"results": np.array(results, object)}
