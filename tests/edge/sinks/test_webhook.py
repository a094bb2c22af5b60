"""Against a real HTTP server that is slow, broken, cut off, restarted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from servers import until

from edge.cli import main as command
from edge.errors import InputError
from edge.sinks.delivery import Delivery, DeliveryError, RefusedError
from edge.sinks.network import Feed, NetworkSink, Watched
from edge.sinks.spool import Spool, Spooled
from edge.sinks.webhook import SigningKey, Webhook
from edge.sources.backoff import Backoff

QUICK = Backoff(0.02, 2.0, 0.1)


class Receiver:
    """A server on one port that can go and come back; `answers` decides by the events of a request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: Callable[[list[dict[str, Any]]], int | None] = lambda events: 200
        self.headers: dict[str, str] = {}
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/secret?x=1"

    @property
    def events(self) -> list[dict[str, Any]]:
        """Those of all acknowledged requests."""
        return [event for _, body in self.requests for event in json.loads(body)["events"]]

    @property
    def distinct(self) -> list[int]:
        """Numbers as a receiver has them that leaves out ids it knows."""
        return [event["number"] for event in {event["id"]: event for event in self.events}.values()]

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.answers(json.loads(body)["events"])
                if status is None:
                    # As if the cable were pulled: after the request, before the answer.
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if status < 300:
                    receiver.requests.append(({name.lower(): self.headers[name] for name in self.headers}, body))
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def receiver(free_port: int) -> Iterator[Receiver]:
    made = Receiver(free_port)
    made.start()
    yield made
    made.stop()


def event(number: int) -> dict[str, Any]:
    return {"source": "door", "number": number}


class Line:
    """Spool and delivery to a receiver."""

    def __init__(self, folder: Path, webhook: Webhook) -> None:
        self.spool = Spool(folder / "s.db")
        self.delivery = Delivery("webhook", self.spool, webhook, QUICK)
        self._made = 0

    def put(self, count: int) -> None:
        self.spool.put([event(self._made + each) for each in range(count)])
        self._made += count
        self.delivery.wake()

    def all_arrived(self) -> None:
        """Returns when each has left the spool, and is counted: that comes a moment later."""
        until(lambda: self.delivery.delivered + self.delivery.refused >= self._made and self.spool.waiting == 0)

    def close(self) -> None:
        self.delivery.close(60.0)
        self.spool.close()


@pytest.fixture
def line(receiver: Receiver, tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path, Webhook(receiver.url, timeout=60.0))
    yield made
    made.close()


def test_events_arrive_in_order_in_few_requests_with_an_id_each(receiver: Receiver, line: Line) -> None:
    line.put(250)
    line.all_arrived()
    assert receiver.distinct == list(range(250))
    assert len(receiver.events) == 250 == line.delivery.delivered
    assert len(receiver.requests) <= 5
    headers, body = receiver.requests[0]
    events = json.loads(body)["events"]
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"{events[0]['id']}..100"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    assert "webhook-signature" not in headers


@pytest.mark.parametrize("trouble", [500, 503, 429, 404, 401, None])
def test_trouble_that_may_pass_loses_nothing_and_keeps_the_order(
    receiver: Receiver, line: Line, trouble: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    calls = iter(range(10**6))
    receiver.answers = lambda events: trouble if next(calls) % 3 else 200
    for _ in range(20):
        line.put(7)
        time.sleep(0.005)
    line.all_arrived()
    receiver.answers = lambda events: 200
    assert receiver.distinct == list(range(140))
    assert line.delivery.refused == 0
    assert "events are kept, and sent when it is back" in caplog.text
    until(lambda: "takes events again" in caplog.text)
    assert "secret" not in caplog.text


def test_an_answer_that_gets_lost_means_twice_never_not_at_all(receiver: Receiver, line: Line) -> None:
    calls = iter(range(10**6))

    def answer(events: list[dict[str, Any]]) -> int | None:
        if next(calls) % 2 == 0:
            receiver.requests.append(({}, json.dumps({"events": events}).encode()))
            return None
        return 200

    receiver.answers = answer
    for _ in range(10):
        line.put(3)
        time.sleep(0.01)
    line.all_arrived()
    assert receiver.distinct == list(range(30))
    assert len(receiver.events) > 30


def test_a_restart_in_the_middle_loses_nothing(receiver: Receiver, line: Line) -> None:
    for number in range(12):
        if number in (3, 7):
            receiver.stop()
        if number in (5, 9):
            receiver.start()
        line.put(10)
        time.sleep(0.05)
    line.all_arrived()
    assert receiver.distinct == list(range(120))


def test_a_slow_server_is_given_up_in_time_and_asked_again(receiver: Receiver, tmp_path: Path) -> None:
    slow = threading.Event()
    receiver.answers = lambda events: 200 if slow.wait(60) else 500
    line = Line(tmp_path, Webhook(receiver.url, timeout=0.1))
    line.put(5)
    time.sleep(0.3)
    assert line.spool.waiting == 5
    slow.set()
    line.all_arrived()
    line.close()
    assert receiver.distinct == list(range(5))


_SENDERS = """
import os, random, signal, sys, time
from pathlib import Path
from edge.sinks.delivery import Delivery
from edge.sinks.spool import Spool, Spooled
from edge.sinks.webhook import Webhook

path, url, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
draw = random.Random(5)
for number in range(rounds):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        spool = Spool(path)
        delivery = Delivery("webhook", spool, Webhook(url))
        os.write(writing, b"open\\n")
        for count in range(10**6):
            spool.put([{"source": "door", "number": 1000 * number + count}])
            os.write(writing, b"%d\\n" % (1000 * number + count))
            delivery.wake()
            time.sleep(0.002)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        said.readline()
        lines = [said.readline() for _ in range(2)]  # however little of the processor it gets
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        sys.stdout.write((b"".join(lines) + said.read()).decode())
    os.waitpid(child, 0)
"""


def test_a_sender_killed_at_any_moment_loses_nothing_and_keeps_the_order(receiver: Receiver, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SENDERS, str(tmp_path / "s.db"), receiver.url, "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    kept = [int(line) for line in done.stdout.split()]
    line = Line(tmp_path, Webhook(receiver.url))
    line.delivery.wake()
    line.all_arrived()
    line.close()
    assert len(kept) > 30
    assert receiver.distinct == sorted(receiver.distinct)
    assert {*kept} <= {*receiver.distinct}


def test_an_event_that_will_never_be_taken_is_set_aside_and_the_others_arrive(
    receiver: Receiver, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = lambda events: 400 if any(each["number"] in (13, 57) for each in events) else 200
    line.put(100)
    line.all_arrived()
    assert receiver.distinct == [number for number in range(100) if number not in (13, 57)]
    assert (line.delivery.refused, line.delivery.delivered) == (2, 98)
    assert sum("is refused and set aside" in record.message for record in caplog.records) == 2


def test_a_server_that_asks_for_time_gets_it(receiver: Receiver, line: Line) -> None:
    asked = []

    def answer(events: list[dict[str, Any]]) -> int:
        asked.append(time.monotonic())
        return 503 if len(asked) == 1 else 200

    receiver.headers, receiver.answers = {"Retry-After": "1"}, answer
    line.put(1)
    line.all_arrived()
    assert asked[1] - asked[0] > 0.95


def test_redirects_are_not_followed(receiver: Receiver, tmp_path: Path) -> None:
    receiver.headers, receiver.answers = {"Location": receiver.url}, lambda events: 301
    spool = Spool(tmp_path / "s.db")
    spool.put([event(0)])
    with pytest.raises(DeliveryError, match=r"answers 301 .*give the final address"):
        Webhook(receiver.url).send(spool.first(1))
    receiver.answers = lambda events: 422
    with pytest.raises(RefusedError, match="answers 422"):
        Webhook(receiver.url).send(spool.first(1))


def test_requests_are_signed_as_standard_webhooks_says(receiver: Receiver, tmp_path: Path) -> None:
    secret = b"a key of twenty-four byt"
    key = SigningKey.parse("whsec_" + base64.b64encode(secret).decode())
    line = Line(tmp_path, Webhook(receiver.url, key, token="t0ken"))
    line.put(1)
    line.all_arrived()
    line.close()
    ((headers, body),) = receiver.requests
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == json.loads(body)["events"][0]["id"]
    assert headers["authorization"] == "Bearer t0ken"
    assert "twenty" not in repr(key)


def test_the_signature_is_that_of_the_published_example() -> None:
    key = SigningKey.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "not an address"),
        ("http://", "not an address"),
        ("https://ada:geheim@host/x", "password in an address"),
        ("https://ada@host/x", "--webhook-token-file"),
        ("https://host:port/x", "not an address"),
        ("https://example..org/geheim", r"example\.\.org cannot be the name of a host"),
        (f"https://{'a' * 64}.org/geheim", "cannot be the name of a host"),
    ],
)
def test_a_bad_address_is_the_users_mistake_and_shows_no_secret(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Webhook(url)
    assert "geheim" not in str(caught.value)


def test_an_address_beyond_ascii_is_asked_as_browsers_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    webhook = Webhook("https://türklingel.example:8443/türklingel/a%20b c?wer=größe&x=%C3%A4")
    monkeypatch.setattr(webhook._opener, "open", lambda request, timeout: asked.append(request) or io.BytesIO())
    spool = Spool(tmp_path / "s.db")
    spool.put([event(0)])
    webhook.send(spool.first(1))
    spool.close()
    (request,) = asked
    host = "https://xn--trklingel-q9a.example:8443"
    assert request.full_url == f"{host}/t%C3%BCrklingel/a%20b%20c?wer=gr%C3%B6%C3%9Fe&x=%C3%A4"
    request.full_url.encode("ascii")


def test_events_reach_an_address_beyond_ascii(receiver: Receiver, tmp_path: Path) -> None:
    line = Line(tmp_path, Webhook(f"http://127.0.0.1:{receiver.port}/türklingel"))
    line.put(3)
    line.all_arrived()
    line.close()
    assert receiver.distinct == [0, 1, 2]


def test_a_token_that_no_header_carries_is_refused_without_showing_it() -> None:
    with pytest.raises(InputError, match="ASCII") as caught:
        Webhook("https://host/x", token="geheim€")
    assert "geheim" not in str(caught.value)


def test_what_no_request_can_hold_is_trouble_that_may_pass_and_shows_no_secret(tmp_path: Path) -> None:
    webhook = Webhook("http://127.0.0.1:9/x", token="geheim\nx")
    spool = Spool(tmp_path / "s.db")
    spool.put([event(0)])
    with pytest.raises(DeliveryError, match="cannot be asked") as caught:
        webhook.send(spool.first(1))
    spool.close()
    assert "geheim" not in str(caught.value)


class Transported:
    """A transport to this test; its first calls end with a bug."""

    address, batch = "nowhere", 10

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.sent: list[int] = []

    def send(self, events: Sequence[Spooled]) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise KeyError("a bug")
        self.sent += [each.number for each in events]

    def idle(self) -> None:
        return

    def close(self, seconds: float) -> None:
        return


def test_a_bug_of_a_receivers_is_logged_once_and_ends_nothing(
    tmp_path: Path, looks: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.delivery.Backoff", lambda: QUICK)
    transport = Transported(failures=4)
    sink = NetworkSink("webhook", "box", {"door": Watched()}, Spool(tmp_path / "s.db"), transport, Feed.DECISIONS)
    sink.write(looks(0.0, (1, "known", "ada")))
    until(lambda: transport.failures <= 2)
    sink.write(looks(0.1, (1, "known", "ada")))
    until(lambda: len(transport.sent) == 2)
    sink.close()
    assert sink.counts().delivered == 2
    assert caplog.text.count("Traceback") == 1
    assert "KeyError: 'a bug'" in caplog.text
    assert "takes events again" in caplog.text


def test_a_key_that_is_no_base64_is_refused() -> None:
    with pytest.raises(InputError, match="Base64"):
        SigningKey.parse("whsec_%%")


class TestSink:
    """From results to the server."""

    def test_visits_are_told_while_the_camera_never_waits(self, receiver: Receiver, tmp_path: Path, looks: Any) -> None:
        seen_all, waited = threading.Event(), list[bool]()
        receiver.answers = lambda events: waited.append(seen_all.wait(60)) or 200  # type: ignore[func-returns-value]
        spool = Spool(tmp_path / "s.db")
        sink = NetworkSink("webhook", "box", {"door": Watched()}, spool, Webhook(receiver.url, timeout=90.0))
        for step in range(200):
            sink.write(looks(step / 10, (step // 20, "known", f"p{step // 20}")))
        seen_all.set()
        sink.close()
        assert waited
        assert all(waited), "the camera waited for the server"
        sink.close()
        told = [(event["type"], event["identity"]) for event in receiver.events]
        assert [name for kind, name in told if kind == "appeared"] == [f"p{number}" for number in range(10)]
        assert sorted(name for kind, name in told if kind == "left") == [f"p{number}" for number in range(10)]
        assert {event["device"] for event in receiver.events} == {"box"}
        assert sink.counts().delivered == 20 == len({event["id"] for event in receiver.events})

    def test_a_server_that_is_away_delays_the_end_little_and_the_next_run_sends_the_rest(
        self, receiver: Receiver, tmp_path: Path, looks: Any
    ) -> None:
        receiver.stop()
        sink = NetworkSink("webhook", "box", {"door": Watched()}, Spool(tmp_path / "s.db"), Webhook(receiver.url))
        sink.write(looks(0.0, (1, "known", "ada")))
        time.sleep(0.3)
        started = time.monotonic()
        sink.close()
        assert time.monotonic() - started < 30, "half of what it is given"
        assert sink.counts().waiting == 2
        receiver.start()
        again = NetworkSink("webhook", "box", {"door": Watched()}, Spool(tmp_path / "s.db"), Webhook(receiver.url))
        again.close()
        assert [event["type"] for event in receiver.events] == ["appeared", "left"]
        assert again.counts().waiting == 0

    def test_every_decision_and_every_picture_are_told_where_wanted(
        self, receiver: Receiver, tmp_path: Path, looks: Any
    ) -> None:
        sources = {"door": Watched(), "folder": Watched(moving=False, live=False)}
        spool = Spool(tmp_path / "s.db")
        sink = NetworkSink("webhook", "box", sources, spool, Webhook(receiver.url), Feed.DECISIONS)
        for step in range(5):
            sink.write(looks(step / 10, (1, "known", "ada")))
        sink.write(looks(0.0, (1, "known", "ada"), (2, "known", None), source="folder", tracked=False))
        sink.close()
        assert [event["type"] for event in receiver.events] == ["decision"] * 5 + ["picture"] * 2
        assert receiver.events[0]["track"]["number"] == 1

    def test_whoever_was_before_a_camera_that_stalls_is_no_longer_there(
        self, receiver: Receiver, tmp_path: Path, looks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edge.sinks.network.STALLED_AFTER", 0.5)
        spool = Spool(tmp_path / "s.db")
        sink = NetworkSink("webhook", "box", {"door": Watched()}, spool, Webhook(receiver.url))
        sink.write(looks(0.0, (1, "known", "ada")))
        until(lambda: len(receiver.events) == 2)
        assert receiver.events[1]["reason"] == "stalled"
        sink.close()
        assert len(receiver.events) == 2

    def test_a_busy_camera_does_not_keep_people_before_one_that_stalls(
        self, tmp_path: Path, looks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Shows(Transported):
            shown: ClassVar[dict[str, Any]] = {}

            def show(self, source: str, present: Mapping[str, Any]) -> None:
                self.shown[source] = present["people"]

        monkeypatch.setattr("edge.sinks.network.STALLED_AFTER", 0.5)
        spool, sources = Spool(tmp_path / "s.db"), {"door": Watched(), "yard": Watched()}
        sink = NetworkSink("mqtt", "box", sources, spool, Shows(), Feed.DECISIONS)
        sink.write(looks(0.0, (1, "known", "ada"), source="door"))
        assert Shows.shown["door"]
        steps = count()

        def door_is_empty() -> bool:
            sink.write(looks(next(steps) / 100, (1, "known", "bob"), source="yard"))
            return not Shows.shown["door"]

        until(door_is_empty)
        assert Shows.shown["yard"]
        sink.close()


@pytest.fixture(scope="module")
def walk(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of person 1, and a gallery that knows them."""
    folder = tmp_path_factory.mktemp("walk")
    toy.write_video(folder / "walk.mp4", [toy.scene(320, 240, [(1, 40 + step, 80)]) for step in range(30)])
    toy.write_scene(folder / "photos" / "ada.png", 200, 160, [(1, 60, 40)])
    arguments = ["enroll", "--bundle", str(toy.path), "--gallery", str(folder / "gallery"), str(folder / "photos")]
    assert command.main(arguments) == 0
    (folder / "euro").write_text("€\n", encoding="utf-8")
    return folder


def test_edge_run_tells_a_server_and_says_so_in_its_summary(receiver: Receiver, toy: Any, walk: Path) -> None:
    (walk / "token").write_text("t0ken\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edge", "run", "--bundle", str(toy.path), "--gallery", str(walk / "gallery")),
            *("--source", f"door={walk / 'walk.mp4'}", "--webhook", receiver.url, "--spool", str(walk / "spool")),
            *("--webhook-token-file", str(walk / "token"), "--device", "box"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [(each["type"], each["identity"]) for each in receiver.events] == [("appeared", "ada"), ("left", "ada")]
    assert "webhook: 2 events delivered" in done.stdout
    assert receiver.requests[0][0]["authorization"] == "Bearer t0ken"


def test_two_receivers_number_visits_alike(receiver: Receiver, tmp_path: Path, looks: Any) -> None:
    names = ("one", "two")
    sources = {"door": Watched(), "yard": Watched()}
    sinks = [
        NetworkSink(name, "box", sources, Spool(tmp_path / f"{name}.db"), Webhook(receiver.url), run="r")
        for name in names
    ]
    for sink in sinks:
        sink.write(looks(0.0, (1, "known", "ada"), source="yard"))
        sink.write(looks(0.0, (1, "known", "bob"), source="door"))
        sink.close()
    visits = sorted((event["visit"], event["identity"], event["type"]) for event in receiver.events)
    expected = [
        (visit, name, kind) for visit, name in (("r-1", "ada"), ("r-2", "bob")) for kind in ("appeared", "left")
    ]
    assert visits == sorted(expected * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mqtt-discovery"], "--mqtt-discovery is for --mqtt, which is not there"),
        (["--video-max-gb", "5"], "--video-max-gb is for --video, which is not there"),
        (["--webhook-key-file", "k"], "--webhook-key-file is for --webhook"),
        (["--webhook", "http://127.0.0.1:9/x", "--webhook-key-file", "{walk}/none"], "the secret cannot be read"),
        (["--webhook", "http://127.0.0.1:9/x", "--webhook-token-file", "/dev/null"], "/dev/null: holds no secret"),
        (["--webhook", "http://127.0.0.1:9/x", "--spool", "/dev/null/x"], "name a folder with --spool"),
        (["--webhook", "https://example..org/x"], "--webhook: example..org cannot be the name of a host"),
        (["--webhook", "http://127.0.0.1:9/x", "--webhook-token-file", "{walk}/euro"], "carries ASCII only"),
        (["--mqtt", "mqtt://example..org"], "--mqtt: example..org cannot be the name of a host"),
        (["--mqtt", "host"], "--mqtt: not an address; write mqtt://"),
        (["--nats", "host"], "--nats: not an address; write nats://"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    toy: Any, walk: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    arguments = ["run", "--bundle", str(toy.path), "--gallery", str(walk / "gallery"), "--source", f"{walk}/walk.mp4"]
    assert command.main([*arguments, *(option.format(walk=walk) for option in options)]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said


def test_a_package_that_is_missing_is_named_with_its_extra(
    toy: Any, walk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("paho", "nats") else find(name))
    arguments = ["run", "--bundle", str(toy.path), "--gallery", str(walk / "gallery"), "--source", f"{walk}/walk.mp4"]
    assert command.main([*arguments, "--mqtt", "mqtt://127.0.0.1"]) == 2
    assert "pip install 'arcedge[mqtt]'" in capsys.readouterr().err
    assert command.main([*arguments, "--nats", "nats://127.0.0.1"]) == 2
    assert "pip install 'arcedge[nats]'" in capsys.readouterr().err


def test_a_replay_tells_nobody(toy: Any, walk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (walk / "s.toml").write_text('length = "1m"\n')
    arguments = ["run", "--bundle", str(toy.path), "--gallery", str(walk / "gallery")]
    arguments += ["--source", f"replay://{walk / 's.toml'}", "--webhook", "http://127.0.0.1:9/x"]
    assert command.main(arguments) == 2
    assert "--webhook would tell of people who are not there" in capsys.readouterr().err
