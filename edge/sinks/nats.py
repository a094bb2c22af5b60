"""Events to a JetStream stream of NATS, each with an id by which the server itself leaves out duplicates."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import MaxPayloadError, SecureConnWantedError
from nats.js.api import Header, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from edge.errors import InputError
from edge.sinks.delivery import DeliveryError, RefusedError
from edge.sinks.homeassistant import level_of
from edge.sinks.secret import address_of
from edge.sinks.spool import Spooled

EXAMPLE = "nats://[USER@]HOST[:PORT]/STREAM, or tls:// for TLS"
PORTS = {"nats": 4222, "tls": 4222}
DUPLICATE_WINDOW = 3600.0
"""Seconds for which a stream made here knows the ids it has: an hour's outage repeats nothing."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """A server and a stream. user: None where the secret is a token; the secret is never printed."""

    scheme: str
    host: str
    port: int
    stream: str
    user: str | None = None
    secret: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, secret: str | None = None) -> NatsAddress:
        """Raises InputError."""
        parts = address_of(url, "--nats", PORTS, EXAMPLE)
        stream = parts.path.strip("/") or "arcedge"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", stream) or "?" in url or "#" in url:
            raise InputError(f"--nats: the name of a stream has letters, digits, - and _; write {EXAMPLE}")
        return cls(
            parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme], stream, parts.username, secret
        )

    @property
    def url(self) -> str:
        """Without user and secret."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def credentials(self) -> dict[str, Any]:
        """As the client takes them."""
        if self.user is None:
            return {} if self.secret is None else {"token": self.secret}
        return {"user": self.user, "password": self.secret or ""}


class Nats:
    """Publishes to STREAM.DEVICE.SOURCE, one event after the other's acknowledgement, so that their order stays.

    A stream that is not there is made, kept in files and fed by all STREAM.> subjects.
    """

    batch = 100

    def __init__(self, address: NatsAddress, device: str, timeout: float = 5.0) -> None:
        """timeout: seconds for a connection or an acknowledgement."""
        self.address = f"{address.host}:{address.port}"
        self._to = address
        self._prefix = f"{address.stream}.{level_of(device)}"
        self._timeout = timeout
        self._loop: _Loop | None = None
        self._client: Client | None = None

    def send(self, events: Sequence[Spooled]) -> None:
        client = self._connected()
        for done, event in enumerate(events):
            self._send(client, event, done)

    def idle(self) -> None:
        self._connected()

    def close(self, seconds: float) -> None:
        self._drop()
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _send(self, client: Client, event: Spooled, done: int) -> None:
        try:
            self._run(self._publish(client, event))
        except DeliveryError as error:
            self._drop()
            raise DeliveryError(str(error), done) from error
        except RefusedError as error:
            raise RefusedError(str(error), done) from error

    def _connected(self) -> Client:
        if self._client is not None and not self._client.is_connected:
            self._drop()
            raise DeliveryError(f"the connection to {self.address} was lost")
        if self._client is None:
            self._client = self._run(self._open())
        return self._client

    async def _open(self) -> Client:
        client = Client() if self._to.scheme == "nats" else _TlsOnly()
        await client.connect(
            self._to.url,
            name="arcedge",
            allow_reconnect=False,
            connect_timeout=max(1, round(self._timeout)),
            error_cb=_nothing,
            **self._to.credentials(),
        )
        try:
            if isinstance(client, _TlsOnly):
                client.check()
            stream = client.jetstream(timeout=self._timeout)
            try:
                await stream.stream_info(self._to.stream)
            except NotFoundError:
                await stream.add_stream(
                    StreamConfig(
                        name=self._to.stream,
                        subjects=[f"{self._to.stream}.>"],
                        storage=StorageType.FILE,
                        duplicate_window=DUPLICATE_WINDOW,
                    )
                )
        except BaseException:
            await client.close()
            raise
        return client

    async def _publish(self, client: Client, event: Spooled) -> None:
        subject = f"{self._prefix}.{level_of(event.source)}"
        try:
            await client.jetstream(timeout=self._timeout).publish(
                subject, event.payload(), stream=self._to.stream, headers={Header.MSG_ID.value: event.id}
            )
        except MaxPayloadError as error:
            raise RefusedError(f"larger than {self.address} takes") from error
        except NoStreamResponseError as error:
            raise DeliveryError(f"{self.address}: stream {self._to.stream} does not take {subject}") from error
        except APIError as error:
            raise DeliveryError(f"{self.address}: stream {self._to.stream}: {error.description}") from error

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for what is done in the client's loop. Raises DeliveryError for all that the network may be."""
        if self._loop is None:
            self._loop = _Loop()
        try:
            return self._loop.run(work, 3 * self._timeout)
        except APIError as error:
            raise DeliveryError(f"{self.address}: {error.description or error}") from error
        except (nats.errors.Error, OSError, TimeoutError, asyncio.TimeoutError, FutureTimeoutError) as error:
            said = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
            # Where it comes at the end of the greeting, the client knows it by its words alone.
            what = "refuses the connection" if "authorization" in said.lower() else "cannot be reached"
            raise DeliveryError(f"{self.address} {what} ({said})") from error

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                self._run(client.close())
            except DeliveryError:
                return


class _TlsOnly(Client):
    """The client goes on in clear, password and all, where whoever answers at a tls:// address asks for no TLS."""

    _insisted = False

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise SecureConnWantedError
        self._insisted = True
        return super()._connect_command()

    def check(self) -> None:
        """Raises SecureConnWantedError where another version of the client connects without the method above."""
        if not self._insisted:
            raise SecureConnWantedError


class _Loop:
    """An event loop in a thread: the client answers the server's pings also while nothing is sent."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    def close(self) -> None:
        """Calls off what is still under way, and waits for its end: as garbage it would be complained of in the log."""
        ended = asyncio.run_coroutine_threadsafe(_call_off_others(), self._loop)
        with contextlib.suppress(FutureTimeoutError):
            ended.result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _call_off_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=1.0)


async def _nothing(error: Exception) -> None:
    """The client would print errors that are raised as well."""
