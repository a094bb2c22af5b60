"""What the server answers: the page, its data, the video, enrolment, metrics and health."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any

from aiohttp import web

from edge.enrolment import Report
from edge.errors import EdgeError
from edge.live import guard as guarding
from edge.live.connections import hurry
from edge.live.enrolling import Enroller, Wish
from edge.live.guard import Guard
from edge.live.metrics import CONTENT_TYPE, Metrics
from edge.live.portraits import jpeg
from edge.live.state import PageState, faces_of
from edge.live.video import Video
from edge.live.watched import Watched

STATE_SECONDS = 0.5
"""Between two messages to a page."""

PATIENCE_SECONDS = 2.0
"""How long a request for a newer frame is kept waiting."""

MOST_VIEWERS = 24
"""Requests that last, at once: each costs the camera's machine something."""

MOST_BYTES = 4096
"""Of what is posted."""


class Site:
    """Everything that answers requests, for the server's loop. closing: set when the run is over."""

    def __init__(self, watched: Watched, guard: Guard, enroller: Enroller) -> None:
        self.watched = watched
        self.guard = guard
        self.enroller = enroller
        self.closing = asyncio.Event()
        self._viewers = 0
        self._state = PageState(watched)
        self._video = Video(watched.board)
        self._metrics = Metrics(watched)
        self._files = _static_files()
        self._enrolling = asyncio.Lock()

    def application(self) -> web.Application:
        """The routes behind the guard."""
        app = web.Application(
            middlewares=[hurry, guarding.middleware(self.guard, self._sign_in_page)], client_max_size=MOST_BYTES
        )
        app.on_response_prepare.append(guarding.add_headers)
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/static/{name}", self.static),
                web.post("/sign-in", self.sign_in),
                web.get("/api/state", self.state),
                web.get("/api/events", self.events),
                web.get("/api/sources/{number:\\d{1,9}}/frame", self.frame),
                web.get("/api/sources/{number:\\d{1,9}}/video", self.video),
                web.get("/api/portrait", self.portrait_of_person),
                web.get("/api/strangers/{run:[0-9a-f]+}-{number:\\d{1,9}}/portrait", self.portrait_of_stranger),
                web.post("/api/strangers/{run:[0-9a-f]+}-{number:\\d{1,9}}/name", self.name_stranger),
                web.post("/api/strangers/{run:[0-9a-f]+}-{number:\\d{1,9}}/forget", self.forget_stranger),
                web.get("/metrics", self.metrics),
                web.get("/healthz", self.health),
            ]
        )
        return app

    async def page(self, _: web.Request) -> web.Response:
        """The page itself."""
        return web.Response(body=self._files["index.html"], content_type="text/html", charset="utf-8")

    async def static(self, request: web.Request) -> web.Response:
        """Its files; asked about again after an update, and not sent twice."""
        name = request.match_info["name"]
        if name not in self._files or name.endswith(".html"):
            raise web.HTTPNotFound(text="no such file\n")
        tag = hashlib.sha256(self._files[name]).hexdigest()[:16]
        kept = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if any(etag.value == tag for etag in request.if_none_match or ()):
            raise web.HTTPNotModified(headers=kept)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return web.Response(body=self._files[name], content_type=kind, headers=kept)

    async def sign_in(self, request: web.Request) -> web.Response:
        """The form of the page that asks for the token."""
        token = self.guard.token
        try:
            offered = (await request.post()).get("token", "")
        except (LookupError, ValueError) as error:  # a character set or a boundary that is none
            raise web.HTTPBadRequest(text="not a form\n") from error
        if token is not None and not (isinstance(offered, str) and token.is_(offered.strip())):
            await asyncio.sleep(guarding.WRONG_TOKEN_SECONDS)
            return self._sign_in_page(wrong=True)
        response = web.Response(status=303, headers={"Location": "/"})
        if token is not None:
            self.guard.admit(request, response)
        return response

    async def state(self, _: web.Request) -> web.Response:
        """What the page shows, once."""
        return web.json_response(self._state.entries())

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The same again and again, as server-sent events."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        async with self._viewing():
            await response.prepare(request)
            with suppress(ConnectionResetError):  # whoever looked has gone
                while True:
                    over = self.closing.is_set()
                    state = json.dumps(self._state.entries()).encode()
                    await response.write(b"retry: 2000\ndata: " + state + b"\n\n")
                    if over:
                        break
                    await self._pause(STATE_SECONDS)
        return response

    async def frame(self, request: web.Request) -> web.Response:
        """The next frame after version `after`, at about `width` pixels, as JPEG; who is in it, as JSON in a header.

        204 where none comes for a while. A page asks for the next when it has shown one: none is sent in vain.
        """
        after, width = (_number(request, name, default) for name, default in (("after", 0), ("width", 960)))
        async with self._viewing():
            picture = await self._video.newer(self._source(request), width, after, PATIENCE_SECONDS, drawn=False)
        if picture is None:
            return web.Response(status=204)
        faces = json.dumps(faces_of(self.watched, picture.result))
        headers = {"X-Version": str(picture.version), "X-Faces": faces}
        return web.Response(body=picture.data, content_type="image/jpeg", headers=headers)

    async def video(self, request: web.Request) -> web.StreamResponse:
        """Motion JPEG with boxes and names drawn, for programs that show such streams."""
        source, width = self._source(request), _number(request, "width", 960)
        kind = "multipart/x-mixed-replace; boundary=frame"
        response = web.StreamResponse(headers={"Content-Type": kind})
        version = 0
        async with self._viewing():
            await response.prepare(request)
            with suppress(ConnectionResetError):
                while not self.closing.is_set():
                    picture = await self._video.newer(source, width, version, 1.0, drawn=True)
                    if picture is not None:
                        version = picture.version
                        await response.write(_part(picture.data))
        return response

    async def portrait_of_person(self, request: web.Request) -> web.Response:
        """The best look at somebody known, as JPEG."""
        person = self.watched.board.person(request.query.get("name", ""))
        if person is None:
            raise web.HTTPNotFound(text="nobody of this name was seen\n")
        return web.Response(body=jpeg(person.portrait.image), content_type="image/jpeg")

    async def portrait_of_stranger(self, request: web.Request) -> web.Response:
        """The best look at a stranger, as JPEG."""
        stranger = self.watched.board.stranger(self._stranger(request))
        if stranger is None:
            raise web.HTTPNotFound(text="this stranger is forgotten\n")
        return web.Response(body=jpeg(stranger.portrait.image), content_type="image/jpeg")

    async def name_stranger(self, request: web.Request) -> web.Response:
        """Enrols a stranger under a name: {"name": …, "anyway": false, "keep_crops": false}."""
        entries = await _json(request)
        name, flags = entries.get("name"), [entries.get(key, False) for key in ("anyway", "keep_crops")]
        if not isinstance(name, str) or not all(isinstance(flag, bool) for flag in flags):
            raise web.HTTPBadRequest(text="a name is text; anyway and keep_crops are true or false\n")
        wish = Wish(self._stranger(request), name, *flags)
        try:
            async with self._enrolling:
                report = await asyncio.to_thread(self.enroller.enrol, wish)
        except EdgeError as error:
            return web.json_response({"error": str(error)}, status=409)
        return web.json_response(_told(report))

    async def forget_stranger(self, request: web.Request) -> web.Response:
        """Drops a stranger's pictures from memory."""
        await _json(request)
        dropped = self.watched.board.drop_stranger(self._stranger(request))
        return web.json_response({"forgotten": dropped})

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def health(self, request: web.Request) -> web.Response:
        """200 while every live source gives results, else 503; why, only to those who may see the page."""
        troubles = self.watched.troubles()
        words = troubles if self.guard.knows(request) else [f"{len(troubles)} sources are not well"]
        status, text = (503, "\n".join(words)) if troubles else (200, "ok")
        return web.Response(status=status, text=text + "\n")

    def _sign_in_page(self, *, wrong: bool = False) -> web.Response:
        text = self._files["sign-in.html"].decode()
        if wrong:
            text = text.replace(' hidden=""', "")
        return web.Response(status=401, text=text, content_type="text/html", headers={"WWW-Authenticate": "Bearer"})

    def _source(self, request: web.Request) -> str:
        number = int(request.match_info["number"])
        if number >= len(self.watched.sources):
            raise web.HTTPNotFound(text="no such source\n")
        return self.watched.sources[number].name

    def _stranger(self, request: web.Request) -> int:
        """The number of the stranger a request is about; 409 for one of another run, whose number may be another's."""
        if request.match_info["run"] != self.watched.board.run:
            error = {"error": "the camera was started anew since; wait until this stranger is seen again"}
            raise web.HTTPConflict(text=json.dumps(error), content_type="application/json")
        return int(request.match_info["number"])

    @asynccontextmanager
    async def _viewing(self) -> AsyncIterator[None]:
        if self._viewers >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many look at once\n", headers={"Retry-After": "5"})
        self._viewers += 1
        try:
            yield
        finally:
            self._viewers -= 1

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.closing.wait(), seconds)
        except asyncio.TimeoutError:
            return


def _static_files() -> dict[str, bytes]:
    folder = resources.files("edge.live") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def _part(data: bytes) -> bytes:
    """A picture as a part of a multipart/x-mixed-replace stream whose boundary is "frame"."""
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data + b"\r\n"


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 12:
        raise web.HTTPBadRequest(text=f"{name} is a number\n")
    return int(text)


async def _json(request: web.Request) -> dict[str, Any]:
    # Other sites can post forms and plain text without asking first, but not this.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="post application/json\n")
    try:
        entries = json.loads(await request.text())
    except (LookupError, RecursionError, ValueError) as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}\n") from error
    if not isinstance(entries, dict):
        raise web.HTTPBadRequest(text="a JSON object is expected\n")
    return entries


def _told(report: Report) -> dict[str, Any]:
    return {
        "name": report.name,
        "pictures": report.pictures,
        "added": report.added,
        "warnings": [{"problem": notice.problem.value, "text": notice.text} for notice in report.notices],
    }
