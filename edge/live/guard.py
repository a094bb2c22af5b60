"""Who may see the page: the token, and what keeps other web sites in a visitor's browser out.

- A name that an attacker's DNS turns to this machine (rebinding) is refused, as its Host header is not ours.
- What another site makes a browser ask or post (CSRF) is refused by Origin and Sec-Fetch-Site.
- A browser that was let in keeps a cookie, never the token; scripts cannot read it and other sites cannot send it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from edge.live.address import Address
from edge.live.token import Token

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Server": "arcedge",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer. Nothing from elsewhere, nothing inline, in nobody's frame."""

WRONG_TOKEN_SECONDS = 0.5
"""How long whoever guesses waits for an answer."""

OPEN_PATHS = ("/healthz", "/sign-in", "/static/")
"""Seen without a token: they tell nothing of anybody."""

_COOKIE_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Guard:
    """address: as bound, with its real port. names: further ones the page is reached by, as behind a proxy."""

    address: Address
    token: Token | None
    names: Sequence[str] = ()
    _ours: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = {self.address.host, "localhost", *self.names}
        if not self.address.loopback:
            # Asked once: a name server that does not answer would hold up whoever looks, for each unknown name.
            machine = socket.gethostname()
            own |= {machine, f"{machine}.local", socket.getfqdn()}
        object.__setattr__(self, "_ours", frozenset(name.lower() for name in own))

    @property
    def cookie_name(self) -> str:
        """Of this port: browsers share cookies between the ports of a host."""
        return f"arcedge-{self.address.port}"

    def refuse(self, request: web.Request) -> None:
        """Raises an HTTP error for a request that this page or this machine did not cause."""
        if not self.is_ours(request.host):
            raise web.HTTPMisdirectedRequest(
                text=f"{_hostname(request.host)} is no name of this page; if it should be: --serve-name NAME\n"
            )
        navigated = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not (
            navigated and request.path == "/"
        ):
            raise web.HTTPForbidden(text="another site asked for this\n")
        origin = request.headers.get("Origin")
        if origin is not None and request.method != "GET" and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="another site sent this\n")

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = _hostname(host)
        if name in self._ours:
            return True
        try:
            ip = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be turned to another one, so that it names whom it reaches.
        return ip.is_loopback or not self.address.loopback

    def knows(self, request: web.Request) -> bool:
        """Whether the request has the token, or the cookie that was given for it; always where there is none."""
        if self.token is None:
            return True
        scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token.is_(offered.strip()):
            return True
        return self.token.made(request.cookies.get(self.cookie_name, ""))

    def admit(self, request: web.Request, response: web.StreamResponse) -> None:
        """Gives the visitor the cookie."""
        assert self.token is not None, "without a token everybody is in"
        response.set_cookie(
            self.cookie_name,
            self.token.cookie,
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )


def middleware(guard: Guard, sign_in: Callable[[], web.Response]) -> Middleware:
    """Stands before every request. sign_in: what a browser without a token gets, with status 401."""

    @web.middleware
    async def stand(request: web.Request, handler: Handler) -> web.StreamResponse:
        guard.refuse(request)
        at_door = guard.token is not None and request.path == "/" and request.method == "GET"
        offered = request.query.get("token") if at_door else None
        # Whoever has the cookie already, too: a bookmark must not leave the token in the address bar.
        if guard.token is not None and offered is not None and guard.token.is_(offered):
            return _let_in(guard, request)
        if guard.knows(request) or request.path.startswith(OPEN_PATHS):
            return await handler(request)
        if offered is not None or "Authorization" in request.headers:
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
        if "text/html" in request.headers.get("Accept", ""):
            return sign_in()
        raise web.HTTPUnauthorized(text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"})

    return stand


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Puts HEADERS on an answer; what says nothing else must not be kept by anybody."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _let_in(guard: Guard, request: web.Request) -> web.Response:
    """Puts the token out of the address bar by a page: after a redirect from elsewhere a browser sends no cookie."""
    text = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>arcedge</title>'
    response = web.Response(text=text, content_type="text/html")
    guard.admit(request, response)
    return response


def _hostname(host: str) -> str:
    """A Host header without its port, in lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().encode(errors="replace").decode()
    except ValueError:
        return ""
