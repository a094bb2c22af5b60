"""Connections that anybody in the network may open: no more than so many at once, none that asks for nothing, and no
line in the log for what is no request."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

MOST_CONNECTIONS = 128
"""Open at once; one more is closed. A process may have 1,024 files open, and the camera needs some of them."""

ASK_SECONDS = 10.0
"""For the head of a connection's first request, and for the body of any."""

KEEP_SECONDS = 15.0
"""How long a connection stays open for the next request. The page asks more often than that."""

LINGER_SECONDS = 1.0
"""For the rest of a body that nobody waits for any more."""

LOG = logging.getLogger(__name__)
"""For aiohttp's server, which writes a traceback for each request that is none: who guesses would fill the disk."""


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether it is about a fault of ours, not about what somebody sent."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


LOG.addFilter(_is_ours)


class Doorkeeper:
    """Makes the protocols of a listening socket's connections. server: answers them."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self, self._server())


class _Connection(asyncio.Protocol):
    """aiohttp's protocol, behind a count and a deadline: aiohttp has none for who never sends a request."""

    def __init__(self, door: Doorkeeper, inner: asyncio.Protocol) -> None:
        self._door = door
        self._inner = inner
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a stream's"
        self._door.open += 1
        self._inner.connection_made(transport)
        if self._door.open > MOST_CONNECTIONS:
            transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(ASK_SECONDS, transport.abort)

    def asked(self) -> None:
        """A request is there: from now on the server closes a connection that is idle."""
        if self._deadline is not None:
            self._deadline.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.open -= 1
        self.asked()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


@web.middleware
async def hurry(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Stands before everything. Takes in what is posted within ASK_SECONDS, else 408; it is kept for the handler.

    400 for a body that is not encoded as its head says.
    """
    transport = request.transport
    connection = None if transport is None else transport.get_protocol()
    if isinstance(connection, _Connection):
        connection.asked()
    if request.can_read_body:
        try:
            await asyncio.wait_for(request.read(), ASK_SECONDS)
        except asyncio.TimeoutError as error:
            late = web.HTTPRequestTimeout(text="too slow\n")
            late.force_close()
            raise late from error
        except web.RequestPayloadError as error:
            broken = web.HTTPBadRequest(text="the body is not what its head says\n")
            broken.force_close()
            raise broken from error
    return await handler(request)
