"""Events as HTTP POST requests; signed, where there is a key, as Standard Webhooks says."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import string
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO
from urllib.parse import SplitResult, quote, urlunsplit

from edge import __version__
from edge.errors import InputError
from edge.sinks.delivery import DeliveryError, RefusedError
from edge.sinks.secret import address_of
from edge.sinks.spool import Spooled

EXAMPLE = "https://HOST/PATH"
_KEY_PREFIX = "whsec_"
_NEVER = frozenset({400, 406, 409, 411, 413, 414, 415, 422, 431})
"""HTTP statuses that blame the request: what is sent again unchanged gets the same answer. Others of the 400s blame the
address or the token (401, 403, 404, 410) or the moment (408, 425, 429), which somebody may put right."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A shared secret; receivers check with it who sent a request, and that nobody changed it."""

    _key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """`whsec_` and Base64, as Standard Webhooks writes keys, or any other text as it is. Raises InputError."""
        if not text.startswith(_KEY_PREFIX):
            return cls(text.encode())
        try:
            return cls(base64.b64decode(text.removeprefix(_KEY_PREFIX), validate=True))
        except binascii.Error as error:
            raise InputError(f"the webhook's key: {_KEY_PREFIX} is to be followed by Base64 ({error})") from error

    def sign(self, identifier: str, timestamp: int, body: bytes) -> str:
        """HMAC-SHA256 over `id.timestamp.body`, as in https://www.standardwebhooks.com."""
        content = b".".join((identifier.encode(), str(timestamp).encode(), body))
        return "v1," + base64.b64encode(hmac.new(self._key, content, hashlib.sha256).digest()).decode()


class Webhook:
    """POSTs up to a hundred events a request, as `{"events": [...]}`; 2xx acknowledges all of them.

    Redirects are not followed: a POST would arrive without its body.
    """

    batch = 100

    def __init__(
        self,
        url: str,
        key: SigningKey | None = None,
        token: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """url: characters beyond ASCII are encoded as browsers do. token: sent as `Authorization: Bearer`.

        timeout: seconds without a byte. Raises InputError for a bad URL, and for a token no header carries.
        """
        parts = address_of(url, "--webhook", {"http": 80, "https": 443}, EXAMPLE)
        if parts.username is not None:
            raise InputError("--webhook: no user in the address; give a token (--webhook-token-file)")
        if token is not None and not token.isascii():
            raise InputError("the webhook's token: a header of a request carries ASCII only; is it the right file?")
        # Paths and queries of webhooks are often what keeps strangers out.
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._url = _as_ascii(parts)
        self._key = key
        self._token = token
        self._timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, events: Sequence[Spooled]) -> None:
        request = self._request(events)
        try:
            with self._opener.open(request, timeout=self._timeout):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise self._said_no(error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise DeliveryError(f"{self.address} cannot be reached ({reason or type(error).__name__})") from error
        except ValueError as error:
            # Its words may quote what is secret: the rest of the address, or the token.
            raise DeliveryError(f"{self.address} cannot be asked ({type(error).__name__})") from error

    def idle(self) -> None:
        return

    def close(self, seconds: float) -> None:
        return

    def _request(self, events: Sequence[Spooled]) -> urllib.request.Request:
        body = json.dumps({"events": [event.named() for event in events]}, ensure_ascii=False).encode()
        # The same for the same events, however often they are sent.
        identifier = events[0].id if len(events) == 1 else f"{events[0].id}..{events[-1].number}"
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"arcedge/{__version__}",
            "webhook-id": identifier,
            "webhook-timestamp": str(timestamp),
        }
        if self._key is not None:
            headers["webhook-signature"] = self._key.sign(identifier, timestamp, body)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - http or https

    def _said_no(self, error: urllib.error.HTTPError) -> Exception:
        said = f"{self.address} answers {error.code} {error.reason}"
        if error.code in _NEVER:
            return RefusedError(said)
        if 300 <= error.code < 400:
            return DeliveryError(f"{said}; redirects are not followed, give the final address")
        return DeliveryError(said, retry_after=_retry_after(error.headers, time.time()))


def _as_ascii(parts: SplitResult) -> str:
    """A URL as a request holds it: the host in Punycode, other characters beyond ASCII percent-encoded (RFC 3987)."""
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc.encode("idna").decode(), path, query, ""))


def _retry_after(headers: Message, now: float) -> float:
    """Seconds the answer asks to wait: a number or a date, 0 where there is neither."""
    value = headers.get("Retry-After") or ""
    try:
        return max(0.0, float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return 0.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None
