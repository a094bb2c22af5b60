"""Against a real mosquitto that is killed, restarted, closed to strangers, behind TLS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
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
from edge.sinks.network import NetworkSink, Watched
from edge.sinks.spool import Spool
from edge.sources.backoff import Backoff

paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install 'arcedge[mqtt]'")

from edge.sinks.homeassistant import Topics, level_of  # noqa: E402
from edge.sinks.mqtt import Mqtt, MqttAddress  # noqa: E402

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
broken = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")
QUICK = Backoff(0.02, 2.0, 0.1)


class Broker(Server):
    """mosquitto on a port of its own; what it has taken it keeps over a restart."""

    def __init__(self, folder: Path, port: int, *, options: str = "allow_anonymous true") -> None:
        assert MOSQUITTO is not None
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {folder}/\n"
            f"autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\n{options}\n"
        )
        super().__init__(port, [MOSQUITTO, "-c", str(config)], folder / "mosquitto.log")


class Subscriber:
    """A client that keeps what it hears, over the broker's restarts."""

    def __init__(self, port: int, topic: str = "#", **auth: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self._topic = topic
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False)
        self._client.reconnect_delay_set(0.05, 0.05)
        if auth:
            self._client.username_pw_set(auth["user"], auth["password"])
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, message.payload, message.retain)
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(60)

    def payloads(self, topic: str) -> list[Any]:
        return [json.loads(payload) for heard, payload, _ in self.heard if heard == topic]

    def last(self, topic: str) -> bytes:
        return next((payload for heard, payload, _ in reversed(self.heard) if heard == topic), b"")

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path, free_port: int) -> Iterator[Broker]:
    with Broker(tmp_path, free_port) as made:
        yield made


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    made = Subscriber(broker.port)
    yield made
    made.stop()


def transport(port: int, **options: Any) -> Mqtt:
    return Mqtt(MqttAddress("127.0.0.1", port, "home", tls=False), "box", ["door"], **options)


def event(number: int) -> dict[str, Any]:
    return {"source": "door", "number": number}


@broken
class TestEvents:
    def test_they_arrive_once_and_in_order_while_all_is_well(
        self, broker: Broker, subscriber: Subscriber, tmp_path: Path
    ) -> None:
        spool = Spool(tmp_path / "s.db")
        delivery = Delivery("mqtt", spool, transport(broker.port), QUICK)
        ids = spool.put([event(number) for number in range(300)])
        delivery.wake()
        until(lambda: len(subscriber.payloads("home/box/door/event")) == 300)
        heard = subscriber.payloads("home/box/door/event")
        assert [each["id"] for each in heard] == ids
        assert [each["number"] for each in heard] == list(range(300))
        delivery.close(60.0)
        assert (delivery.delivered, spool.waiting) == (300, 0)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_a_broker_killed_and_restarted_in_the_middle_loses_nothing(
        self, broker: Broker, subscriber: Subscriber, tmp_path: Path, number: signal.Signals
    ) -> None:
        spool = Spool(tmp_path / "s.db")
        delivery = Delivery("mqtt", spool, transport(broker.port, timeout=2.0), QUICK)
        made = 0
        for step in range(40):
            spool.put([event(made + each) for each in range(10)])
            made += 10
            delivery.wake()
            time.sleep(0.01)
            if step in (8, 24):
                broker.kill(number)
            if step in (16, 32):
                broker.start()
        until(lambda: spool.waiting == 0)
        until(lambda: {each["number"] for each in subscriber.payloads("home/box/door/event")} == {*range(made)})
        first = {each["id"]: each["number"] for each in reversed(subscriber.payloads("home/box/door/event"))}
        heard = list(dict.fromkeys(each["number"] for each in subscriber.payloads("home/box/door/event")))
        assert heard == sorted(heard), "the first time each is heard is in order"
        assert len(first) == made
        delivery.close(60.0)


@broken
class TestPresence:
    def test_who_is_there_is_retained_and_said_again_after_a_restart(
        self, broker: Broker, tmp_path: Path, looks: Any
    ) -> None:
        sink = NetworkSink(
            "mqtt", "box", {"door": Watched()}, Spool(tmp_path / "s.db"), transport(broker.port, timeout=2.0)
        )
        sink.write(looks(0.0, (1, "known", "ada"), (2, "unknown", None)))
        late = Subscriber(broker.port)
        until(lambda: b"ada" in late.last("home/box/door/state"))
        state = json.loads(late.last("home/box/door/state"))
        assert (state["people"], state["unknown"], state["count"]) == (["ada"], 1, 2)
        until(lambda: late.last("home/box/availability") == b"online")
        assert not [topic for topic, _, retained in late.heard if retained and topic.endswith("/event")]
        late.stop()
        broker.kill()
        for path in tmp_path.glob("mosquitto.db*"):
            path.unlink()  # a broker that has forgotten everything
        sink.write(looks(1.0, (1, "known", "ada"), (2, "known", "bob")))
        broker.start()
        later = Subscriber(broker.port)
        until(lambda: b"bob" in later.last("home/box/door/state"))
        until(lambda: later.last("home/box/availability") == b"online")
        sink.close()
        until(lambda: later.last("home/box/availability") == b"offline")
        until(lambda: json.loads(later.last("home/box/door/state"))["count"] == 0)
        later.stop()

    def test_whoever_was_left_there_by_a_crash_is_gone_with_the_next_start(
        self, broker: Broker, tmp_path: Path
    ) -> None:
        before = Subscriber(broker.port)
        before._client.publish("home/box/door/state", b'{"people": ["ada"]}', qos=1, retain=True).wait_for_publish(60)
        spool = Spool(tmp_path / "s.db")
        sink = NetworkSink("mqtt", "box", {"door": Watched()}, spool, transport(broker.port))
        until(lambda: json.loads(before.last("home/box/door/state") or b"{}").get("people") == [])
        sink.close()
        before.stop()

    def test_a_box_that_dies_is_said_to_be_offline_by_the_broker(
        self, broker: Broker, subscriber: Subscriber, tmp_path: Path
    ) -> None:
        code = (
            "import sys, time\nfrom pathlib import Path\n"
            "from edge.sinks.mqtt import Mqtt, MqttAddress\nfrom edge.sinks.delivery import Delivery\n"
            "from edge.sinks.spool import Spool\n"
            "to = Mqtt(MqttAddress('127.0.0.1', int(sys.argv[1]), 'home', tls=False), 'box', ['door'])\n"
            "delivery = Delivery('mqtt', Spool(Path(sys.argv[2])), to)\ntime.sleep(60)\n"
        )
        box = subprocess.Popen([sys.executable, "-c", code, str(broker.port), str(tmp_path / "s.db")])
        until(lambda: subscriber.last("home/box/availability") == b"online")
        box.kill()
        box.wait()
        until(lambda: subscriber.last("home/box/availability") == b"offline")

    def test_home_assistant_is_told_what_there_is(self, broker: Broker, subscriber: Subscriber, tmp_path: Path) -> None:
        to = transport(broker.port, discovery_prefix="homeassistant")
        delivery = Delivery("mqtt", Spool(tmp_path / "s.db"), to, QUICK)
        until(lambda: subscriber.last("home/box/availability") == b"online")
        delivery.close(60.0)
        told = {topic: json.loads(payload) for topic, payload, _ in subscriber.heard if topic.startswith("homeass")}
        assert sorted(told) == [
            "homeassistant/binary_sensor/arcedge_box_door_occupancy/config",
            "homeassistant/sensor/arcedge_box_door_people/config",
            "homeassistant/sensor/arcedge_box_door_unknown/config",
        ]
        for config in told.values():
            assert config["state_topic"] == "home/box/door/state"
            assert config["availability_topic"] == "home/box/availability"
            assert config["device"]["identifiers"] == ["arcedge_box"]
        assert len({config["unique_id"] for config in told.values()}) == 3

    def test_the_templates_for_home_assistant_say_what_they_should(self) -> None:
        jinja2 = pytest.importorskip("jinja2")
        from edge.sinks.homeassistant import discovery

        told = [json.loads(one) for one in discovery(Topics("home", "box", ["door"]), "ha").values()]
        states = ({"people": ["ada", "bob"], "unknown": 1, "count": 3}, {"people": [], "unknown": 0, "count": 0})
        said = [[jinja2.Template(each["value_template"]).render(value_json=state) for each in told] for state in states]
        assert said == [["ON", "ada, bob", "1"], ["OFF", "nobody", "0"]]


@broken
class TestAccess:
    def test_a_wrong_password_is_said_and_the_right_one_is_let_in(
        self, tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        tool = shutil.which("mosquitto_passwd")
        if tool is None:
            pytest.skip("needs mosquitto_passwd")
        subprocess.run([tool, "-c", "-b", str(tmp_path / "users"), "ada", "geheim"], check=True, capture_output=True)
        with Broker(tmp_path, free_port, options=f"allow_anonymous false\npassword_file {tmp_path}/users"):
            spool = Spool(tmp_path / "s.db")
            spool.put([event(0)])
            address = MqttAddress.parse(f"mqtt://ada@127.0.0.1:{free_port}", "wrong")
            delivery = Delivery("mqtt", spool, Mqtt(address, "box", ["door"]), QUICK)
            until(lambda: "refuses the connection (Not authorized)" in caplog.text)
            delivery.close(60.0)
            assert spool.waiting == 1
            address = MqttAddress.parse(f"mqtt://ada@127.0.0.1:{free_port}", "geheim")
            delivery = Delivery("mqtt", spool, Mqtt(address, "box", ["door"]), QUICK)
            until(lambda: spool.waiting == 0)
            delivery.close(60.0)
            assert "geheim" not in caplog.text + repr(address)

    def test_tls_is_spoken_and_a_stranger_in_the_middle_is_refused(
        self, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        certificate, key = self_signed(tmp_path)
        files = f"certfile {certificate}\nkeyfile {key}"
        with Broker(tmp_path, free_port, options=f"allow_anonymous true\n{files}"):
            spool = Spool(tmp_path / "s.db")
            spool.put([event(0)])
            address = MqttAddress.parse(f"mqtts://localhost:{free_port}/home")
            delivery = Delivery("mqtt", spool, Mqtt(address, "box", ["door"]), QUICK)
            until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
            delivery.close(60.0)
            assert spool.waiting == 1
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            delivery = Delivery("mqtt", spool, Mqtt(address, "box", ["door"]), QUICK)
            until(lambda: spool.waiting == 0)
            delivery.close(60.0)


@pytest.mark.parametrize(
    ("url", "password", "message"),
    [
        ("http://host", None, "not an address"),
        ("mqtt://", None, "not an address"),
        ("mqtt://ada:geheim@host", None, "password in an address"),
        ("mqtt://host/a/#", None, "holds no #"),
        ("mqtt://host/+/a", None, "holds no #"),
        ("mqtt://host", "geheim", "a password and no user"),
    ],
)
def test_a_bad_address_is_the_users_mistake(url: str, password: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        MqttAddress.parse(url, password)
    assert "geheim" not in str(caught.value)


def test_addresses_have_the_usual_ports_and_prefix() -> None:
    assert MqttAddress.parse("mqtt://host") == MqttAddress("host", 1883, "arcedge", tls=False)
    assert MqttAddress.parse("mqtts://ada@host:1/a/b/", "p") == MqttAddress("host", 1, "a/b", True, "ada", "p")


def test_topics_hold_one_level_a_name_and_two_sources_never_share_one() -> None:
    assert level_of("rtsp://10.0.0.7:554/live+#") == "rtsp_10_0_0_7_554_live"
    assert level_of("/") == "_"
    with pytest.raises(InputError, match="--source NAME=a/b"):
        Topics("p", "box", ["a/b", "a b"])


def test_a_server_that_accepts_and_says_nothing_is_given_up(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        made = Mqtt(MqttAddress.parse(f"mqtt://127.0.0.1:{free_port}"), "box", ["door"], timeout=0.3)
        with pytest.raises(DeliveryError, match="gives no answer"):
            made.idle()
        made.close(1.0)


@broken
def test_edge_run_tells_a_broker(broker: Broker, subscriber: Subscriber, toy: Any, tmp_path: Path) -> None:
    toy.write_video(tmp_path / "walk.mp4", [toy.scene(320, 240, [(1, 40 + step, 80)]) for step in range(30)])
    toy.write_scene(tmp_path / "photos" / "ada.png", 200, 160, [(1, 60, 40)])
    where = ["--bundle", str(toy.path), "--gallery", str(tmp_path / "gallery")]
    assert command.main(["enroll", *where, str(tmp_path / "photos")]) == 0
    arguments = ["--source", f"door={tmp_path / 'walk.mp4'}", "--device", "box", "--spool", str(tmp_path / "spool")]
    assert command.main(["run", *where, *arguments, "--mqtt", f"mqtt://127.0.0.1:{broker.port}/home"]) == 0
    until(lambda: subscriber.last("home/box/availability") == b"offline")
    assert [each["type"] for each in subscriber.payloads("home/box/door/event")] == ["appeared", "left"]
