"""Against a real nats-server with JetStream that is killed, restarted, closed to strangers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Server, self_signed, until

from edge.cli import main as command
from edge.errors import InputError
from edge.sinks.delivery import Delivery, DeliveryError
from edge.sinks.spool import Spool
from edge.sources.backoff import Backoff

nats = pytest.importorskip("nats", reason="needs nats-py: pip install 'arcedge[nats]'")

from edge.sinks.nats import Nats, NatsAddress  # noqa: E402

SERVER = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
served = pytest.mark.skipif(SERVER is None, reason="needs nats-server: apt-get install nats-server")
QUICK = Backoff(0.02, 2.0, 0.1)


class NatsServer(Server):
    """nats-server on a port of its own, with its streams in files."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        assert SERVER is not None
        command = [SERVER, "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(folder / "js"), *options]
        super().__init__(port, command, folder / "nats.log")

    def _greets(self, probe: socket.socket) -> bool:
        return probe.recv(4) == b"INFO"

    def stored(self, stream: str = "fleet", **credentials: str) -> list[tuple[str, dict[str, Any]]]:
        """Subject and payload of everything in a stream."""

        async def read() -> list[tuple[str, dict[str, Any]]]:
            client = await nats.connect(f"nats://127.0.0.1:{self.port}", **credentials)
            manager = client.jsm()
            state = (await manager.stream_info(stream)).state
            numbers = range(state.first_seq, state.last_seq + 1)
            messages = [await manager.get_msg(stream, number) for number in numbers]
            await client.close()
            return [(message.subject or "", json.loads(message.data or b"")) for message in messages]

        return asyncio.run(read())


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[NatsServer]:
    with NatsServer(tmp_path, free_port) as made:
        yield made


def event(number: int, source: str = "door") -> dict[str, Any]:
    return {"source": source, "number": number}


def transport(port: int, stream: str = "fleet") -> Nats:
    return Nats(NatsAddress.parse(f"nats://127.0.0.1:{port}/{stream}"), "box 1", timeout=2.0)


@served
def test_events_are_stored_once_in_order_by_device_and_source(server: NatsServer, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    delivery = Delivery("nats", spool, transport(server.port), QUICK)
    ids = spool.put([event(number, ("door", "rtsp://yard.local/1")[number % 2]) for number in range(200)])
    delivery.wake()
    until(lambda: spool.waiting == 0)
    delivery.close(60.0)
    stored = server.stored()
    assert [payload["id"] for _, payload in stored] == ids
    assert [payload["number"] for _, payload in stored] == list(range(200))
    assert {subject for subject, _ in stored} == {"fleet.box_1.door", "fleet.box_1.rtsp_yard_local_1"}


@served
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_killed_and_restarted_in_the_middle_loses_nothing_and_stores_nothing_twice(
    server: NatsServer, tmp_path: Path, number: signal.Signals
) -> None:
    spool = Spool(tmp_path / "s.db")
    delivery = Delivery("nats", spool, transport(server.port), QUICK)
    made = 0
    for step in range(40):
        spool.put([event(made + each) for each in range(10)])
        made += 10
        delivery.wake()
        time.sleep(0.01)
        if step in (8, 24):
            server.kill(number)
        if step in (16, 32):
            server.start()
    until(lambda: spool.waiting == 0)
    delivery.close(60.0)
    assert [payload["number"] for _, payload in server.stored()] == list(range(made))


@served
def test_what_was_stored_and_not_heard_of_is_sent_again_and_stored_once(server: NatsServer, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    spool.put([event(number) for number in range(5)])
    first = transport(server.port)
    first.send(spool.first(3))
    first.close(1.0)
    delivery = Delivery("nats", spool, transport(server.port), QUICK)
    until(lambda: spool.waiting == 0)
    delivery.close(60.0)
    assert [payload["number"] for _, payload in server.stored()] == list(range(5))


@served
def test_a_stream_that_is_there_is_left_as_it_is(
    server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        await client.jetstream().add_stream(name="fleet", subjects=["other.>"], max_msgs=7)
        await client.close()

    asyncio.run(make())
    spool = Spool(tmp_path / "s.db")
    spool.put([event(0)])
    delivery = Delivery("nats", spool, transport(server.port), QUICK)
    until(lambda: "stream fleet does not take fleet.box_1.door" in caplog.text)
    delivery.close(60.0)
    assert spool.waiting == 1


@served
def test_an_event_that_is_too_large_holds_up_no_other(server: NatsServer, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    spool.put([event(0), event(1), {**event(2), "much": "x" * 2_000_000}, event(3)])
    delivery = Delivery("nats", spool, transport(server.port), QUICK)
    until(lambda: spool.waiting == 0)
    delivery.close(60.0)
    assert [payload["number"] for _, payload in server.stored()] == [0, 1, 3]
    assert (delivery.refused, delivery.delivered) == (1, 3)


@served
@pytest.mark.parametrize(
    ("options", "user", "right"),
    [
        (["--user", "ada", "--pass", "geheim"], "ada@", {"user": "ada", "password": "geheim"}),
        (["--auth", "geheim"], "", {"token": "geheim"}),
    ],
)
def test_a_wrong_secret_is_said_and_the_right_one_is_let_in(
    tmp_path: Path,
    free_port: int,
    caplog: pytest.LogCaptureFixture,
    options: list[str],
    user: str,
    right: dict[str, str],
) -> None:
    with NatsServer(tmp_path, free_port, *options) as server:
        spool = Spool(tmp_path / "s.db")
        spool.put([event(0)])
        for secret in ("wrong", "geheim"):
            address = NatsAddress.parse(f"nats://{user}127.0.0.1:{free_port}/fleet", secret)
            delivery = Delivery("nats", spool, Nats(address, "box"), QUICK)
            if secret == "wrong":
                until(lambda: "refuses the connection" in caplog.text)
            else:
                until(lambda: spool.waiting == 0)
            delivery.close(60.0)
            assert "geheim" not in caplog.text + repr(address)
        assert len(server.stored(**right)) == 1


class TestTls:
    @served
    def test_it_is_spoken_and_a_stranger_in_the_middle_is_refused(
        self, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        certificate, key = self_signed(tmp_path)
        files = ["--tlscert", str(certificate), "--tlskey", str(key)]
        with NatsServer(tmp_path, free_port, "--tls", *files):
            spool = Spool(tmp_path / "s.db")
            spool.put([event(0)])
            address = NatsAddress.parse(f"tls://localhost:{free_port}/fleet")
            delivery = Delivery("nats", spool, Nats(address, "box"), QUICK)
            until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
            delivery.close(60.0)
            assert spool.waiting == 1
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            delivery = Delivery("nats", spool, Nats(address, "box"), QUICK)
            until(lambda: spool.waiting == 0)
            delivery.close(60.0)

    def test_nothing_secret_is_said_to_whoever_asks_for_no_tls(self, tmp_path: Path, free_port: int) -> None:
        heard, accepted = bytearray(), list[socket.socket]()

        def pretend() -> None:
            connection, _ = listener.accept()
            accepted.append(connection)
            with connection:
                connection.sendall(b'INFO {"server_id":"x","version":"2.9.10","max_payload":99999,"headers":true}\r\n')
                with contextlib.suppress(ConnectionError):
                    while part := connection.recv(1000):
                        heard.extend(part)

        with socket.create_server(("127.0.0.1", free_port)) as listener:
            thread = threading.Thread(target=pretend)
            thread.start()
            transport = Nats(NatsAddress.parse(f"tls://ada@127.0.0.1:{free_port}/fleet", "geheim"), "box", timeout=1.0)
            with pytest.raises(DeliveryError, match="cannot be reached"):
                transport.idle()
            transport.close(1.0)
            accepted[0].shutdown(socket.SHUT_RD)  # what was sent before is read nevertheless
            thread.join()
        assert bytes(heard) == b""


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mqtt://host", "not an address"),
        ("nats://", "not an address"),
        ("nats://ada:geheim@host", "password in an address"),
        ("nats://host/a.b", "the name of a stream"),
        ("nats://host/a/b", "the name of a stream"),
        ("nats://host/a?b", "the name of a stream"),
    ],
)
def test_a_bad_address_is_the_users_mistake(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        NatsAddress.parse(url)
    assert "geheim" not in str(caught.value)


def test_a_server_that_accepts_and_says_nothing_is_given_up(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        made = Nats(NatsAddress.parse(f"nats://127.0.0.1:{free_port}"), "box", timeout=0.3)
        with pytest.raises(DeliveryError, match="cannot be reached"):
            made.idle()
        made.close(1.0)
    del made
    gc.collect()
    assert not caplog.records, "nothing is left that complains as garbage"


@served
def test_edge_run_tells_a_stream(server: NatsServer, toy: Any, tmp_path: Path) -> None:
    toy.write_video(tmp_path / "walk.mp4", [toy.scene(320, 240, [(1, 40 + step, 80)]) for step in range(30)])
    toy.write_scene(tmp_path / "photos" / "ada.png", 200, 160, [(1, 60, 40)])
    where = ["--bundle", str(toy.path), "--gallery", str(tmp_path / "gallery")]
    assert command.main(["enroll", *where, str(tmp_path / "photos")]) == 0
    arguments = ["--source", f"door={tmp_path / 'walk.mp4'}", "--device", "box", "--spool", str(tmp_path / "spool")]
    assert command.main(["run", *where, *arguments, "--nats", f"nats://127.0.0.1:{server.port}/fleet"]) == 0
    stored = server.stored()
    assert [(subject, payload["type"]) for subject, payload in stored] == [
        ("fleet.box.door", "appeared"),
        ("fleet.box.door", "left"),
    ]
