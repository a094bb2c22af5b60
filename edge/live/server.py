"""The server's life: a thread with a loop of its own, so that nobody who looks is in the camera's way."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from dataclasses import replace
from types import TracebackType

from aiohttp import web

from edge.errors import InputError
from edge.live.address import Address
from edge.live.connections import KEEP_SECONDS, LINGER_SECONDS, LOG, Doorkeeper
from edge.live.routes import Site

_CLOSE_SECONDS = 2.0
"""For telling pages that the run is over."""

_LOG = logging.getLogger(__name__)


def listen(address: Address) -> tuple[socket.socket, Address]:
    """Takes the port; gives the address, with the port chosen for 0. Raises InputError where it cannot be had."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(where)
            taken.listen(64)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise InputError(
            f"--serve {address.host}:{address.port}: cannot listen there ({error.strerror}); is the port taken, or the "
            "address another machine's?"
        ) from error
    return taken, replace(address, port=taken.getsockname()[1])


class LiveServer:
    """Answers from the start of the `with` to its end. taken: a listening socket, which it closes."""

    def __init__(self, taken: socket.socket, site: Site) -> None:
        self._socket = taken
        self._site = site
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="live page", daemon=True)

    def __enter__(self) -> LiveServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._site.closing.set)
        self._thread.join(timeout=2 * _CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            _LOG.exception("the live page ended; the cameras go on")
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    async def _serve(self) -> None:
        runner = web.AppRunner(
            self._site.application(),
            access_log=None,
            logger=LOG,
            shutdown_timeout=_CLOSE_SECONDS,
            handle_signals=False,
            keepalive_timeout=KEEP_SECONDS,
            lingering_time=LINGER_SECONDS,
        )
        await runner.setup()
        assert runner.server is not None, "set up"
        listening = await self._loop.create_server(Doorkeeper(runner.server), sock=self._socket)
        try:
            await self._site.closing.wait()
        finally:
            listening.close()
            await runner.cleanup()
