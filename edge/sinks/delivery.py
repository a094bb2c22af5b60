"""From the spool to the network, at least once and in order, however long the network is away."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from edge.errors import InputError
from edge.sinks.spool import Spool, Spooled
from edge.sources.backoff import Backoff

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 1.0

LONGEST_ASKED = 300.0
"""Seconds that are waited at most where the other side asks for a time."""


class DeliveryError(Exception):
    """Not now, perhaps later. done: events at the front that arrived. retry_after: seconds the other side asks for."""

    def __init__(self, message: str, done: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.done = done
        self.retry_after = retry_after


class RefusedError(Exception):
    """The other side will never take these events as they are. done: events at the front that arrived nevertheless."""

    def __init__(self, message: str, done: int = 0) -> None:
        super().__init__(message)
        self.done = done


class Transport(Protocol):
    """The way to one receiver; all but the constructor is called in one thread.

    address: of the receiver, fit for logs. batch: events that `send` takes at most.
    """

    address: str
    batch: int

    def send(self, events: Sequence[Spooled]) -> None:
        """Returns once all are acknowledged. Raises DeliveryError or RefusedError."""

    def idle(self) -> None:
        """What there is to do besides events, about once a second. Raises DeliveryError."""

    def close(self, seconds: float) -> None:
        """Takes leave, in about so many seconds at most."""


class Delivery:
    """A thread that sends what is in the spool and removes what was acknowledged.

    It waits ever longer after each failure, up to half a minute; the log has a line when the trouble begins and one
    when it ends. An event that is refused is set aside, so that those behind it go on. A transport's bug is such a
    failure, with its traceback in the log: cameras, and other receivers, have nothing to do with it.
    """

    def __init__(self, name: str, spool: Spool, transport: Transport, backoff: Backoff | None = None) -> None:
        self._name = name
        self._spool = spool
        self._transport = transport
        self._backoff = backoff or Backoff()
        self._delays: Iterator[float] | None = None
        self._batch = transport.batch
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._deadline = 0.0
        self._bug_told = False
        self.delivered = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name=f"{name} delivery", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something new in the spool; from any thread."""
        self._wake.set()

    def close(self, seconds: float) -> bool:
        """Sends what waits, until that fails or the time is up; whether the thread has ended."""
        self._deadline = time.monotonic() + seconds
        self._stop.set()
        self._wake.set()
        self._thread.join(seconds + 1.0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ended():
            self._turn()
        self._transport.close(max(0.5, self._deadline - time.monotonic()))

    def _ended(self) -> bool:
        if not self._stop.is_set():
            return False
        return self._spool.waiting == 0 or self._delays is not None or time.monotonic() >= self._deadline

    def _turn(self) -> None:
        try:
            moved = self._step()
        except (DeliveryError, InputError) as error:
            self._wait_longer(error)
            return
        except Exception as error:
            if not self._bug_told:
                _LOG.exception("%s: a bug of arcedge's", self._name)
            self._bug_told = True
            self._wait_longer(DeliveryError(f"{self._transport.address}: {type(error).__name__}"))
            return
        self._bug_told = False
        if self._delays is not None:
            _LOG.warning("%s: %s takes events again; %d wait", self._name, self._transport.address, self._spool.waiting)
            self._delays = None
        if not moved:
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()

    def _step(self) -> bool:
        """Sends a batch; whether there was one."""
        events = self._spool.first(self._batch)
        if not events:
            self._transport.idle()
            return False
        try:
            self._transport.send(events)
        except DeliveryError as error:
            self._arrived(events[: error.done])
            raise
        except RefusedError as error:
            self._arrived(events[: error.done])
            self._find_the_refused(events[error.done :], error)
        else:
            self._arrived(events)
            self._batch = min(self._transport.batch, self._batch * 2)
        return True

    def _arrived(self, events: Sequence[Spooled]) -> None:
        if events:
            self._spool.remove(events)
            self.delivered += len(events)

    def _find_the_refused(self, events: Sequence[Spooled], error: RefusedError) -> None:
        """Among several one may be at fault: they are sent in ever smaller batches, until it is alone."""
        if len(events) > 1:
            self._batch = len(events) // 2
            return
        self._spool.set_aside(events[0], str(error))
        self.refused += 1
        _LOG.warning("%s: event %s is refused and set aside: %s", self._name, events[0].id, error)

    def _wait_longer(self, error: DeliveryError | InputError) -> None:
        if self._delays is None:
            _LOG.warning("%s: %s; events are kept, and sent when it is back", self._name, error)
            # Drawn by the system: boxes that start together must not call together.
            self._delays = self._backoff.delays(random.SystemRandom())
        asked = min(LONGEST_ASKED, error.retry_after) if isinstance(error, DeliveryError) else 0.0
        self._stop.wait(max(next(self._delays), asked))
