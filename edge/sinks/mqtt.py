"""Events to an MQTT broker at QoS 1, and retained: who is there now, and whether this box is."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import InputError
from edge.sinks.delivery import DeliveryError
from edge.sinks.homeassistant import Topics, discovery
from edge.sinks.secret import address_of
from edge.sinks.spool import Spooled

EXAMPLE = "mqtt://[USER@]HOST[:PORT]/PREFIX, or mqtts:// for TLS"
PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE = 30
"""Seconds; after one and a half times as long without a word the broker says that this box is offline."""


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """A broker, and what all topics begin with. password: not part of what users type, nor of what is printed."""

    host: str
    port: int
    prefix: str
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, password: str | None = None) -> MqttAddress:
        """Raises InputError."""
        parts = address_of(url, "--mqtt", PORTS, EXAMPLE)
        prefix = parts.path.strip("/") or "arcedge"
        if re.search(r"[+\x00-\x1f]|//", prefix) or "#" in url or "?" in url:
            raise InputError(f"--mqtt: a prefix of topics holds no #, + or ?; write {EXAMPLE}")
        if password is not None and parts.username is None:
            raise InputError("--mqtt: there is a password and no user; write mqtt://USER@HOST")
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        return cls(host, port, prefix, parts.scheme == "mqtts", parts.username, password)


class Mqtt:
    """A connection that `Delivery` opens anew, with a new client, whenever it was lost.

    Topics, all below PREFIX/DEVICE: `availability`, and of each source `state` (both retained) and `event`.
    """

    batch = 20

    def __init__(
        self,
        address: MqttAddress,
        device: str,
        sources: Sequence[str],
        discovery_prefix: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """discovery_prefix: where Home Assistant looks for what there is; None tells it nothing.

        timeout: seconds for a connection or an acknowledgement. Raises InputError where topics of sources would meet.
        """
        self.address = f"{address.host}:{address.port}"
        self._to = address
        self._topics = Topics(address.prefix, device, sources)
        self._announced = discovery(self._topics, discovery_prefix) if discovery_prefix is not None else {}
        self._timeout = timeout
        self._lock = threading.Lock()
        self._states: dict[str, bytes] = {}
        self._dirty: set[str] = set()
        self._link: _Link | None = None

    def show(self, source: str, present: Mapping[str, Any]) -> None:
        with self._lock:
            self._states[self._topics.state(source)] = json.dumps(present, ensure_ascii=False).encode()
            self._dirty.add(self._topics.state(source))

    def send(self, events: Sequence[Spooled]) -> None:
        link = self._connected()
        messages = [_Message(self._topics.event(event.source), event.payload()) for event in events]
        try:
            link.publish(messages)
        except DeliveryError:
            self._drop()
            raise
        self._publish_states(link)

    def idle(self) -> None:
        self._publish_states(self._connected())

    def close(self, seconds: float) -> None:
        if self._link is None:
            return
        self._link.timeout = min(self._timeout, seconds)
        # Where this fails, the connection has been lost, and the broker says it for us.
        with suppress(DeliveryError):
            self._publish_states(self._link)
            self._link.publish([_Message(self._topics.availability, b"offline", retain=True)])
        self._drop()

    def _connected(self) -> _Link:
        """The connection, or a new one, on which everything retained is said again. Raises DeliveryError."""
        if self._link is not None and self._link.lost.is_set():
            self._drop()
            raise DeliveryError(f"the connection to {self.address} was lost")
        if self._link is None:
            self._link = _Link(self._to, self._topics, self._timeout)
            with self._lock:
                self._dirty = {*self._states}
            try:
                online = _Message(self._topics.availability, b"online", retain=True)
                announced = [_Message(topic, payload, retain=True) for topic, payload in self._announced.items()]
                self._publish_states(self._link)
                self._link.publish([*announced, online])
            except DeliveryError:
                self._drop()
                raise
        return self._link

    def _publish_states(self, link: _Link) -> None:
        with self._lock:
            dirty = {topic: self._states[topic] for topic in self._dirty}
        if not dirty:
            return
        link.publish([_Message(topic, payload, retain=True) for topic, payload in sorted(dirty.items())])
        with self._lock:
            # What changed meanwhile stays to be said.
            self._dirty -= {topic for topic, payload in dirty.items() if self._states[topic] == payload}

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    retain: bool = False


class _Link:
    """One connection, from its beginning to its loss."""

    def __init__(self, to: MqttAddress, topics: Topics, timeout: float) -> None:
        """Raises DeliveryError where the broker cannot be reached, or refuses."""
        self._name = f"{to.host}:{to.port}"
        self.timeout = timeout
        self._news = threading.Condition()
        self._answer: ReasonCode | None = None
        self._acknowledged: set[int] = set()
        self.lost = threading.Event()
        # The same for ever: a broker that still holds a dead connection of ours ends it, and says "offline" before we
        # say "online", not after.
        identifier = hashlib.sha256(topics.availability.encode()).hexdigest()[:16]
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"arcedge{identifier}", reconnect_on_failure=False
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_timeout = timeout
        self._client.will_set(topics.availability, b"offline", qos=1, retain=True)
        if to.user is not None:
            self._client.username_pw_set(to.user, to.password)
        if to.tls:
            self._client.tls_set_context(ssl.create_default_context())
        try:
            self._client.connect(to.host, to.port, keepalive=KEEPALIVE)
        except (OSError, ValueError) as error:
            raise DeliveryError(f"{self._name} cannot be reached ({error})") from error
        self._client.loop_start()
        self._wait_for_answer()

    def publish(self, messages: Sequence[_Message]) -> None:
        """Returns once the broker has acknowledged all. Raises DeliveryError with the number of those it has."""
        numbers: list[int] = []
        for message in messages:
            sent = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            if sent.rc != paho.MQTT_ERR_SUCCESS:
                break
            numbers.append(sent.mid)
        with self._news:
            self._news.wait_for(lambda: self.lost.is_set() or self._acknowledged.issuperset(numbers), self.timeout)
            missing = (place for place, number in enumerate(numbers) if number not in self._acknowledged)
            done = next(missing, len(numbers))
            self._acknowledged.clear()
        if done < len(messages):
            why = "was lost" if self.lost.is_set() else f"gave no answer for {self.timeout:.0f} s"
            raise DeliveryError(f"the connection to {self._name} {why}", done)

    def close(self) -> None:
        """Says goodbye, if anybody hears it."""
        self._client.disconnect()
        self._client.loop_stop()

    def _wait_for_answer(self) -> None:
        with self._news:
            self._news.wait_for(lambda: self._answer is not None or self.lost.is_set(), self.timeout)
        if self._answer is None or self._answer.is_failure:
            self.close()
            why = "gives no answer" if self._answer is None else f"refuses the connection ({self._answer})"
            raise DeliveryError(f"{self._name} {why}")

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._news:
            self._answer = reason
            self._news.notify_all()

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._news:
            self.lost.set()
            self._news.notify_all()

    def _on_publish(self, client: paho.Client, data: Any, number: int, reason: ReasonCode, properties: Any) -> None:
        with self._news:
            self._acknowledged.add(number)
            self._news.notify_all()
