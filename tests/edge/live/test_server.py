"""What the server answers to whom, beside a camera that runs."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port, until

from edge.errors import InputError
from edge.gallery import Gallery
from edge.live.address import Address
from edge.live.guard import Guard
from edge.live.server import listen
from edge.live.token import Token
from edge.sinks import SinkCounts
from edge.summary import Summary

NAME = "Ada Ærø 彩"
SECRET = "0123456789abcdef-secret"
TOKEN = Token.of(SECRET, "test")


def both_decided(state: Any) -> bool:
    return len(state["people"]) == 1 and len(state["strangers"]) == 1


def test_the_state_tells_who_was_seen_and_what_it_cost(start: Any) -> None:
    began = time.time()
    with start() as rig:
        state = rig.wait(both_decided)
    person, stranger, source = state["people"][0], state["strangers"][0], state["sources"][0]
    assert (person["name"], person["source"]) == (NAME, "door <b>")
    assert person["similarity"] > 0.95
    assert began <= person["first"] <= person["last"] <= state["now"] <= time.time()
    assert stranger["nearest"] == NAME
    assert stranger["similarity"] < state["bundle"]["threshold"]
    assert (source["state"], source["size"], source["in_view"]) == ("running", [480, 320], 2)
    assert {"detect", "embed", "match"} <= {stage["name"] for stage in state["stages"]}
    assert all(0 <= stage["p50"] <= stage["p95"] for stage in state["stages"])
    assert state["gallery"] == {"identities": 1, "vectors": 1, "readable": True}


def test_a_frame_comes_with_who_is_in_it_and_none_comes_twice(rig: Any) -> None:
    rig.wait(both_decided)
    first = rig.ask("/api/sources/0/frame?after=0&width=320")
    image = cv2.imdecode(np.frombuffer(first.body, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (213, 320, 3)
    faces = {face["state"]: face for face in json.loads(first.headers["x-faces"])}
    assert faces["known"]["name"] == NAME
    assert faces["unknown"]["stranger"] == rig.ask("/api/state").json["strangers"][0]["id"]
    x, y, width, height = faces["known"]["box"]
    # The toy detector's box is 64 pixels wide around the patch; the person stands at (40, 120) of 480 by 320.
    assert [x * 480, y * 320, width * 480, height * 320] == pytest.approx([40, 120, 64, 64], abs=5)
    later = rig.ask(f"/api/sources/0/frame?after={first.headers['x-version']}&width=320")
    assert int(later.headers["x-version"]) > int(first.headers["x-version"])
    assert rig.ask("/api/sources/1/frame").status == 404
    assert rig.ask("/api/sources/0/frame?after=x").status == 400


def test_motion_jpeg_has_names_drawn_and_goes_on(rig: Any) -> None:
    rig.wait(both_decided)
    with socket.create_connection(("127.0.0.1", rig.page.address.port), timeout=10) as stream:
        stream.sendall(b"GET /api/sources/0/video HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while data.count(b"--frame\r\n") < 4:
            data += stream.recv(65536)
    assert b"multipart/x-mixed-replace; boundary=frame" in data
    jpeg = data.split(b"--frame\r\n")[2].partition(b"\r\n\r\n")[2]
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (320, 480, 3)
    # The label above the known person's box is dark where the scene is grey.
    assert image[108:116, 50:90].mean() < 100


def test_a_stranger_gets_a_name_and_the_next_frames_say_it(rig: Any) -> None:
    stranger = rig.wait(both_decided)["strangers"][0]
    picture = rig.ask(f"/api/strangers/{stranger['id']}/portrait")
    assert picture.headers["content-type"] == "image/jpeg"
    told = rig.post(f"/api/strangers/{stranger['id']}/name", {"name": " Grace ", "keep_crops": True})
    assert (told.status, told.json["name"]) == (200, "Grace")
    assert told.json["added"] >= 1
    state = rig.wait(lambda state: len(state["people"]) == 2)
    assert {person["name"] for person in state["people"]} == {NAME, "Grace"}
    assert not rig.wait(lambda state: not state["strangers"])["strangers"]
    assert state["gallery"]["identities"] == 2
    with Gallery.open(rig.gallery) as gallery:
        assert all(entry.crop is not None for entry in gallery.entries("Grace"))


def test_crops_are_kept_only_where_that_is_asked_for(rig: Any) -> None:
    number = rig.wait(both_decided)["strangers"][0]["id"]
    assert rig.post(f"/api/strangers/{number}/name", {"name": "Grace"}).json["added"] >= 1
    with Gallery.open(rig.gallery) as gallery:
        assert {entry.crop for entry in gallery.entries("Grace")} == {None}


def test_a_doubtful_enrolment_asks_first(rig: Any) -> None:
    number = rig.wait(lambda state: state["strangers"] and state["strangers"][0]["looks"] > 1)["strangers"][0]["id"]
    # The stranger is not like the person who has the name already.
    asked = rig.post(f"/api/strangers/{number}/name", {"name": NAME}).json
    assert asked["added"] == 0
    assert {warning["problem"] for warning in asked["warnings"]} >= {"unlike the others"}
    assert rig.post(f"/api/strangers/{number}/name", {"name": NAME, "anyway": True}).json["added"] >= 1


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        *(({"name": "  "}, 409), ({"name": "x" * 300}, 409), ({"name": 3}, 400), ({}, 400), ([], 400)),
        *(({"name": "a", "anyway": 1}, 400), ({"name": "x" * 9000}, 413)),
    ],
)
def test_an_unfit_name_enrols_nobody(rig: Any, entries: Any, status: int) -> None:
    number = rig.wait(both_decided)["strangers"][0]["id"]
    assert rig.post(f"/api/strangers/{number}/name", entries).status == status
    with Gallery.open(rig.gallery) as gallery:
        assert [identity.name for identity in gallery.identities()] == [NAME]


def test_a_stranger_is_forgotten_on_request(rig: Any) -> None:
    number = rig.wait(both_decided)["strangers"][0]["id"]
    rig.camera.picture = np.full((320, 480, 3), 128, np.uint8)
    rig.wait(lambda state: state["sources"][0]["in_view"] == 0)
    assert rig.post(f"/api/strangers/{number}/forget", {}).json == {"forgotten": True}
    assert rig.ask("/api/state").json["strangers"] == []
    assert rig.ask(f"/api/strangers/{number}/portrait").status == 404
    assert rig.post(f"/api/strangers/{number}/name", {"name": "Grace"}).status == 409


def test_after_a_restart_a_page_of_before_gets_frames_and_names_nobody(start: Any) -> None:
    with start(port=free_port()) as before:
        old = before.wait(both_decided)
    with start(port=before.page.address.port) as rig:
        new = rig.wait(both_decided)
        assert new["run"] != old["run"]
        assert rig.ask("/api/sources/0/frame?after=900000&width=320").status == 200
        stranger = old["strangers"][0]["id"]
        for answer in (
            rig.post(f"/api/strangers/{stranger}/name", {"name": "Eve"}),
            rig.post(f"/api/strangers/{stranger}/forget", {}),
            rig.ask(f"/api/strangers/{stranger}/portrait"),
        ):
            assert (answer.status, "started anew" in answer.json["error"]) == (409, True)
        assert rig.ask("/api/state").json["strangers"][0]["id"] == new["strangers"][0]["id"]
        assert rig.ask("/api/state").json["gallery"]["identities"] == 1


def test_events_say_the_state_again_and_again_and_that_the_run_is_over(start: Any) -> None:
    with start() as rig:
        stream = socket.create_connection(("127.0.0.1", rig.page.address.port), timeout=10)
        stream.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while data.count(b"data: ") < 2:
            data += stream.recv(65536)
        assert b"Content-Type: text/event-stream" in data
        assert b'"ended": false' in data
    rest = b""
    while part := stream.recv(65536):
        rest += part
    stream.close()
    assert b'"ended": true' in rest


class TestMetrics:
    def families(self, rig: Any) -> dict[str, Any]:
        answer = rig.ask("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {family.name: family for family in text_string_to_metric_families(answer.text)}

    def test_they_are_read_by_prometheus_own_parser_and_add_up(self, rig: Any) -> None:
        rig.wait(both_decided)
        families = self.families(rig)
        value = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families.values()
            for sample in family.samples
        }
        faces = value["arcedge_faces_total", "door <b>"]
        decisions = families["arcedge_decisions"].samples
        assert {sample.labels["state"] for sample in decisions} == {"known", "unknown", "pending"}
        assert faces == sum(sample.value for sample in decisions)
        assert faces >= 2
        assert value["arcedge_frames_total", "door <b>"] <= value["arcedge_frames_captured_total", "door <b>"]
        assert value["arcedge_gallery_identities",] == 1
        assert value["arcedge_healthy",] == value["arcedge_source_up", "door <b>"] == 1
        assert value["process_resident_memory_bytes",] > 10e6
        assert (
            families["arcedge_bundle_info"].samples[0].labels["digest"]
            == rig.ask("/api/state").json["bundle"]["digest"]
        )

    def test_the_buckets_of_a_stage_grow_to_its_count(self, start: Any) -> None:
        began = time.monotonic()
        with start() as rig:
            rig.wait(lambda state: state["sources"][0]["frames"] >= 10)
            families = self.families(rig)
        samples = [
            sample
            for sample in families["arcedge_stage_duration_seconds"].samples
            if sample.labels["stage"] == "detect"
        ]
        buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
        count = next(sample.value for sample in samples if sample.name.endswith("_count"))
        assert buckets == sorted(buckets)
        assert buckets[-1] == count >= 10
        spent = next(sample.value for sample in samples if sample.name.endswith("_sum"))
        assert 0 < spent < time.monotonic() - began

    def test_sinks_tell_what_they_lost_and_the_page_is_none(self, rig: Any) -> None:
        counts = SinkCounts(lost=3, delivered=5, waiting=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Summary, "sink_counts", property(lambda _: {"mqtt": counts, "board": SinkCounts()}))
            families = self.families(rig)
            told = rig.ask("/api/state").json["sinks"]
        results = {sample.labels["outcome"]: sample for sample in families["arcedge_sink_results"].samples}
        assert {name: sample.value for name, sample in results.items()} == {
            "lost": 3,
            "delivered": 5,
            "dropped": 0,
            "refused": 0,
        }
        assert {sample.labels["sink"] for sample in results.values()} == {"mqtt"}
        assert families["arcedge_sink_waiting"].samples[0].value == 2
        assert [(sink["name"], sink["lost"], sink["waiting"]) for sink in told] == [("mqtt", 3, 2)]

    @pytest.mark.parametrize("file", ["grafana-dashboard.json", "arcedge-alerts.yml"])
    def test_what_dashboard_and_alerts_ask_for_is_there(self, rig: Any, repository: Path, file: str) -> None:
        rig.wait(both_decided)
        known = {sample.name for family in self.families(rig).values() for sample in family.samples}
        known |= {"arcedge_sink_results_total", "arcedge_sink_waiting"}  # the rig has no sink
        asked = set(re.findall(r"\b(?:arcedge|process)_[a-z_]+", (repository / "deploy" / file).read_text()))
        assert len(asked) >= 3
        assert asked <= known

    def test_nobody_is_named_in_them(self, rig: Any) -> None:
        rig.wait(both_decided)
        assert NAME not in rig.ask("/metrics").text
        labels = {label for family in self.families(rig).values() for s in family.samples for label in s.labels}
        assert labels <= {
            *("source", "reason", "state", "stage", "le", "sink"),
            *("version", "digest", "detector", "landmarker", "embedder", "engine"),
        }


def test_health_tells_when_a_camera_gives_nothing_any_more(start: Any) -> None:
    with start(stale_after=0.5) as rig:
        rig.wait(lambda state: state["sources"][0]["frames"] > 0)
        until(lambda: rig.ask("/healthz").status == 200)  # a busy machine may stall for as long as the camera may not
        rig.camera.picture = None
        until(lambda: rig.ask("/healthz").status == 503)
        state = rig.wait(lambda state: state["troubles"])
        assert state["sources"][0]["state"] == "stalled"
        assert "door <b>: nothing for" in rig.ask("/healthz").text
        assert "arcedge_healthy 0.0" in rig.ask("/metrics").text


class TestWithAToken:
    def test_nothing_is_seen_without_it(self, start: Any) -> None:
        with start(TOKEN) as rig:
            for path in ("/api/state", "/api/events", "/metrics", "/api/sources/0/frame", "/api/sources/0/video"):
                answer = rig.ask(path)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert rig.post("/api/strangers/1/name", {"name": "Eve"}).status == 401
            form = rig.ask("/", {"Accept": "text/html"})
            assert form.status == 401
            assert 'action="/sign-in"' in form.text

    def test_health_is_open_and_names_nobody(self, start: Any) -> None:
        with start(TOKEN, stale_after=0.2) as rig:
            rig.camera.picture = None
            until(lambda: rig.ask("/healthz").status == 503)
            assert "door" not in rig.ask("/healthz").text
            assert "door" in rig.ask("/healthz", {"Authorization": f"Bearer {SECRET}"}).text

    def test_a_scraper_brings_it_in_a_header_and_a_wrong_one_takes_time(self, start: Any) -> None:
        with start(TOKEN) as rig:
            assert rig.ask("/metrics", {"Authorization": f"Bearer {SECRET}"}).status == 200
            began = time.monotonic()
            assert rig.ask("/metrics", {"Authorization": f"Bearer {SECRET}x"}).status == 401
            assert time.monotonic() - began > 0.4

    def test_a_browser_gets_a_cookie_for_it_by_address_or_form(self, start: Any) -> None:
        with start(TOKEN) as rig:
            by_address = rig.ask(f"/?token={SECRET}")
            by_form = rig.ask(
                "/sign-in", {"Content-Type": "application/x-www-form-urlencoded"}, "POST", f"token={SECRET}"
            )
            assert (by_address.status, by_form.status, by_form.headers["location"]) == (200, 303, "/")
            for answer in (by_address, by_form):
                cookie = answer.headers["set-cookie"]
                assert "HttpOnly" in cookie
                assert "SameSite=Strict" in cookie
                assert SECRET not in cookie
                kept = {"Cookie": cookie.partition(";")[0]}
                assert rig.ask("/api/state", kept).status == 200
                assert 'content="0;url=/"' in rig.ask(f"/?token={SECRET}", kept).text
            assert rig.ask("/?token=" + "x" * 20, {"Accept": "text/html"}).status == 401
            wrong = rig.ask("/sign-in", {"Content-Type": "application/x-www-form-urlencoded"}, "POST", "token=no")
            assert wrong.status == 401
            assert "set-cookie" not in wrong.headers
            assert 'role="alert">That is not the token.' in wrong.text


class TestOtherSites:
    def test_a_name_that_is_not_ours_is_refused(self, start: Any) -> None:
        with start(names=("cam.example",)) as rig:
            for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.1.9", ""):
                assert rig.ask("/api/state", {"Host": host}).status == 421
            for host in ("localhost", "127.0.0.1:1", "[::1]:8080", "cam.example", "CAM.example:443"):
                assert rig.ask("/api/state", {"Host": host}).status == 200

    def test_what_another_site_posts_is_refused(self, rig: Any) -> None:
        number = rig.wait(both_decided)["strangers"][0]["id"]
        path = f"/api/strangers/{number}/name"
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://localhost:1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            assert rig.post(path, {"name": "Eve"}, headers).status == 403
        plain = rig.ask(path, {"Content-Type": "text/plain"}, "POST", '{"name": "Eve"}')
        assert plain.status == 415
        with Gallery.open(rig.gallery) as gallery:
            assert [identity.name for identity in gallery.identities()] == [NAME]
        ours = f"127.0.0.1:{rig.page.address.port}"
        assert rig.post(path, {"name": "Grace"}, {"Origin": f"http://{ours}", "Host": ours}).status == 200

    def test_another_site_may_link_here_and_nothing_else(self, rig: Any) -> None:
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert rig.ask("/", link).status == 200
        assert rig.ask("/api/state", link).status == 403
        assert rig.ask("/", {**link, "Sec-Fetch-Mode": "no-cors"}).status == 403

    def test_every_answer_forbids_what_is_not_from_here(self, rig: Any) -> None:
        for path in ("/", "/static/page.js", "/api/state", "/metrics", "/nowhere"):
            headers = rig.ask(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"

    def test_no_file_holds_inline_code_or_points_elsewhere(self, rig: Any) -> None:
        page = rig.ask("/").text
        assert "<style" not in page
        assert ' style="' not in page
        assert "<script>" not in page
        for name in ("page.css", "page.js", "video.js", "people.js", "enrol.js", "health.js", "dom.js"):
            text = rig.ask(f"/static/{name}").text
            assert "https://" not in text
            assert "innerHTML" not in text
        assert rig.ask("/static/..%2f__init__.py").status == 404


def test_a_file_that_has_not_changed_is_not_sent_again(rig: Any) -> None:
    tag = rig.ask("/static/page.js").headers["etag"]
    assert rig.ask("/static/page.js", {"If-None-Match": tag}).status == 304


def test_a_port_that_is_taken_is_the_users_mistake(rig: Any) -> None:
    with pytest.raises(InputError, match="cannot listen there"):
        listen(Address("127.0.0.1", rig.page.address.port))


class TestWhatAnybodyMaySend:
    """Without a token: it must cost neither open files nor lines in the log."""

    def exchanged(self, rig: Any, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", rig.page.address.port), timeout=10) as connection:
            connection.sendall(request)
            data = b""
            while part := connection.recv(65536):
                data += part
            return data

    @pytest.mark.parametrize(
        "header", [b"Authorization: Bearer \xff\xfe", b"Cookie: arcedge-%d=\xff", b"Host: \xff.example"], ids=str
    )
    def test_bytes_that_are_no_text_are_refused_and_leave_no_traceback(
        self, start: Any, header: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with start(TOKEN) as rig:
            header = header.replace(b"%d", str(rig.page.address.port).encode())
            host = b"" if header.startswith(b"Host") else b"Host: localhost\r\n"
            lines = b"GET /api/state HTTP/1.1\r\nConnection: close\r\n" + host + header
            answer = self.exchanged(rig, lines + b"\r\n\r\n")
        assert answer.split(b" ")[1] in (b"400", b"401", b"421")
        assert "Traceback" not in caplog.text
        assert not caplog.records

    @pytest.mark.parametrize(
        ("path", "head", "body"),
        [
            ("/sign-in", "Content-Type: multipart/form-data", "x"),
            ("/sign-in", "Content-Type: application/x-www-form-urlencoded; charset=none-such", "token=x"),
            ("/sign-in", "Content-Type: application/x-www-form-urlencoded\r\nContent-Encoding: gzip", "token=x"),
            ("/sign-in", "Transfer-Encoding: chunked", "no length"),
            ("/api/strangers/0-1/name", "Content-Type: application/json; charset=none-such", "{}"),
            ("/api/strangers/0-1/name", "Content-Type: application/json", "[" * 4000),
            ("/healthz?\u00b2", "X: y", ""),
            ("/healthz HTTP/1.1\r\nHost: localhost\r\nX", "", ""),
        ],
        ids=["boundary", "charset", "encoding", "chunks", "JSON's charset", "JSON's depth", "address", "header"],
    )
    def test_what_is_no_request_is_refused_and_leaves_no_traceback(
        self, rig: Any, path: str, head: str, body: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        length = "" if "chunked" in head else f"Content-Length: {len(body)}\r\n"
        lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}{head}\r\n\r\n{body}"
        assert self.exchanged(rig, lines.encode()).split(b" ")[1] == b"400"
        assert not caplog.records

    @pytest.mark.parametrize(
        "begun",
        [
            b"",
            b"GET / HTTP/1.1\r\nHost: loc",
            b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        ],
        ids=["nothing", "half a head", "no body"],
    )
    def test_who_asks_for_nothing_is_let_go(self, start: Any, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
        monkeypatch.setattr("edge.live.connections.ASK_SECONDS", 0.3)
        with start(TOKEN) as rig:
            began = time.monotonic()
            assert self.exchanged(rig, begun).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")
            assert time.monotonic() - began < 10, "what it is given unless a test says otherwise"

    def test_an_idle_connection_is_closed(self, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.live.server.KEEP_SECONDS", 0.3)
        with start(TOKEN) as rig:
            assert self.exchanged(rig, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").endswith(b"ok\n")

    def test_no_more_connections_than_so_many_are_open(self, rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.live.connections.MOST_CONNECTIONS", 5)
        address = "127.0.0.1", rig.page.address.port
        held = [socket.create_connection(address, timeout=60) for _ in range(5)]
        with pytest.raises(ConnectionError):
            rig.ask("/healthz")
        held.pop().close()

        def let_in() -> bool:
            with contextlib.suppress(ConnectionError):
                return bool(rig.ask("/healthz").status == 200)
            return False

        until(let_in)
        for connection in held:
            connection.close()

    def test_an_unknown_name_asks_no_name_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        guard = Guard(Address("0.0.0.0", 80), TOKEN)
        monkeypatch.setattr(socket, "getfqdn", lambda: pytest.fail("asked"))
        assert not guard.is_ours("evil.example")
        assert guard.is_ours(socket.gethostname())
