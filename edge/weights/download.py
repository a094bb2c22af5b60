"""One file over HTTP, with the standard library alone: resumable, bounded in size, over https."""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from edge import __version__
from edge.errors import DownloadError, InputError

Progress = Callable[[int], None]
"""Called with the bytes there are so far; they become fewer where a server makes us begin anew."""

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that pass: the same request may succeed a little later."""
MAX_WAIT = 30.0
REAL_PROGRESS = 1 << 20
"""Bytes a connection must bring for it to count as no failure when it breaks."""
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """timeout: seconds without a byte. attempts: failures in a row before giving up. backoff: seconds, doubled each."""

    timeout: float = 30.0
    attempts: int = 5
    backoff: float = 1.0


class _TryAgain(Exception):  # noqa: N818 - not an error: the request is worth another attempt
    """wait: seconds the server asks for, None where it does not."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str, part: Path, limit: int, *, size: int | None, options: DownloadOptions, progress: Progress
) -> None:
    """Brings `url` into `part`, going on from the bytes `part` holds where the server's file is still the same.

    limit: bytes that are taken at most; size: of the whole file, where known. What comes is not verified here.
    Raises InputError for an address that is not https, DownloadError for everything else, and OSError where `part`
    cannot be written. Bytes that may still be of use stay in `part`.
    """
    require_secure(url)
    failures = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, limit, size, options, progress)
        except _TryAgain as failure:
            failures = 1 if _size(part) - before >= REAL_PROGRESS else failures + 1
            if failures >= options.attempts:
                kept = f"; {_size(part)} bytes are kept, the same command goes on from there" if _size(part) else ""
                raise DownloadError(f"{shown(url)}: {failure} ({failures} attempts){kept}") from failure
            wait = failure.wait if failure.wait is not None else options.backoff * 2 ** (failures - 1)
            time.sleep(min(wait, MAX_WAIT))


def discard(part: Path) -> None:
    """Removes a partial file and what is known of its origin."""
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def require_secure(url: str) -> None:
    """Raises InputError for an address that is neither https nor http on this very machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{url}: not an address ({error})") from error
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(url))):
        raise InputError(
            f"{shown(url)}: downloads come over https only (http from this machine itself); give such a URL"
        )


def shown(url: str) -> str:
    """An address for messages, without the secrets a query or a user part may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _attempt(url: str, part: Path, limit: int, size: int | None, options: DownloadOptions, progress: Progress) -> None:
    offset, validator = _resume_point(url, part, limit)
    if offset and offset == size:
        progress(offset)
        return
    headers = {"User-Agent": f"arcedge/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with _open(url, headers, options.timeout, part) as response:
        if response.status == 206 and offset:
            start, total = _content_range(response.headers)
            if start != offset:
                discard(part)
                raise _TryAgain("the server sent another part than was asked for", wait=0.0)
        else:
            discard(part)  # first, so that old bytes never meet the new file's validator
            offset, total = 0, _content_length(response.headers)
            _remember(url, part, response.headers)
        if max(total or 0, offset) > limit or (size is not None and total is not None and total != size):
            discard(part)
            raise DownloadError(f"{shown(url)}: has {total} bytes, not the {size or f'{limit} at most'} it should have")
        with part.open("ab" if offset else "wb") as file:
            got = _copy(response, file, offset, limit, progress)
    if got > limit:
        discard(part)
        raise DownloadError(f"{shown(url)}: sends more than the {limit} bytes it should have; nothing was kept")
    if got < (total or size or 0):
        raise _TryAgain(f"the connection ended after {got} of {total or size} bytes")


def _copy(response: http.client.HTTPResponse, file: IO[bytes], got: int, limit: int, progress: Progress) -> int:
    """Bytes in the file afterwards: up to one chunk above the limit, which tells that there was more."""
    while got <= limit:
        try:
            block = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgain(f"the connection broke ({_reason(error)})") from error
        if not block:
            break
        file.write(block)
        got += len(block)
        progress(got)
    return got


def _open(url: str, headers: dict[str, str], timeout: float, part: Path) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = _opener(url).open(Request(url, headers=headers), timeout=timeout)  # noqa: S310
    except HTTPError as error:
        with error:
            if error.code == 416 and "Range" in headers:
                discard(part)
                raise _TryAgain("the server's file has become shorter", wait=0.0) from error
            if error.code in BUSY:
                raise _TryAgain(
                    f"the server answers {error.code} {error.reason}", _retry_after(error.headers)
                ) from error
            said = f"{error.code} {str(error.reason).splitlines()[0]}"
            raise DownloadError(f"{shown(url)}: the server answers {said}; --from takes a mirror") from error
    except http.client.InvalidURL as error:
        raise InputError(f"{shown(url)}: not an address ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        reason: Any = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{shown(url)}: its certificate is not valid ({reason.verify_message})") from error
        raise _TryAgain(f"cannot be reached ({_reason(reason)})") from error
    return response


class _SecureRedirects(HTTPRedirectHandler):
    """Follows redirects to addresses as secure as the first."""

    http_error_308 = HTTPRedirectHandler.http_error_302  # urllib knows 308 from Python 3.11 on

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        try:
            require_secure(newurl)
        except InputError as error:
            raise DownloadError(f"{shown(req.full_url)}: redirects to an address that is not https") from error
        if not _is_loopback(req.full_url) and _is_loopback(newurl):
            raise DownloadError(f"{shown(req.full_url)}: redirects to this very machine")
        # To ask again in the same way is what 307 means too, which every urllib knows.
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)


def _opener(url: str) -> OpenerDirector:
    handlers: list[Any] = [_SecureRedirects()]
    if _is_loopback(url):
        handlers.append(ProxyHandler({}))  # a proxy's loopback is another machine
    return build_opener(*handlers)


def _resume_point(url: str, part: Path, limit: int) -> tuple[int, str]:
    """(bytes to go on from, the validator that ties them to the server's file), or (0, "")."""
    size = _size(part)
    try:
        origin = json.loads(_origin(part).read_text(encoding="utf-8"))
        if 0 < size <= limit and origin["url"] == url and origin["validator"]:
            return size, str(origin["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is known of the partial file, so that it begins anew
    return 0, ""


def _remember(url: str, part: Path, headers: Message) -> None:
    """Notes what identifies the server's file. A weak ETag must not be used for ranges (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    _origin(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _origin(part: Path) -> Path:
    return part.with_name(part.name + ".origin")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _content_length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _content_range(headers: Message) -> tuple[int, int | None]:
    """(first byte, bytes of the whole) of `Content-Range: bytes 5-9/10`; (-1, None) where it is none."""
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit():
        return -1, None
    return int(first), int(total) if total.isdigit() else None


def _retry_after(headers: Message) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: Any) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
