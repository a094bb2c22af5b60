"""Where a Triton server is, as a user names it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge.errors import InputError

URL_ENVIRONMENT = "ARCEDGE_TRITON_URL"
TIMEOUT_ENVIRONMENT = "ARCEDGE_TRITON_TIMEOUT"
PORT = 8001
"""Triton's own for gRPC."""
TIMEOUT = 5.0

_SCHEMES = {"grpc": False, "grpcs": True}


@dataclass(frozen=True, slots=True)
class Address:
    """host, port: of the server's gRPC service; tls: over TLS, with the certificates this machine trusts.

    timeout: seconds a request may take, all attempts together.
    """

    host: str
    port: int = PORT
    tls: bool = False
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise InputError(f"triton: a time-out of {self.timeout} s; give some seconds, as in 5")

    @classmethod
    def parse(cls, text: str, timeout: float = TIMEOUT) -> Address:
        """HOST, HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT. Raises InputError for anything else."""
        scheme, separator, rest = text.partition("://")
        if separator and scheme in ("http", "https"):
            raise InputError(f"{text}: is Triton's HTTP service; arcedge speaks gRPC: grpc://HOST:{PORT}")
        if separator and scheme not in _SCHEMES:
            raise InputError(f"{text}: no address of a Triton server; give grpc://HOST:{PORT} or grpcs://HOST:{PORT}")
        try:
            parts = urlsplit(f"//{rest if separator else text}")
            host, port = parts.hostname, parts.port or PORT
        except ValueError as error:
            raise InputError(f"{text}: no address of a Triton server ({error})") from error
        if not host or parts.path not in ("", "/") or parts.query or parts.username is not None:
            raise InputError(f"{text}: no address of a Triton server; give HOST:{PORT}")
        return cls(host, port, _SCHEMES[scheme] if separator else False, timeout)

    @classmethod
    def from_environment(cls) -> Address | None:
        """The one that the environment names; None where it names none. Raises InputError for one that is none."""
        if not (url := os.environ.get(URL_ENVIRONMENT)):
            return None
        text = os.environ.get(TIMEOUT_ENVIRONMENT) or str(TIMEOUT)
        try:
            timeout = float(text)
        except ValueError as error:
            raise InputError(f"{TIMEOUT_ENVIRONMENT}={text}: not a number of seconds") from error
        return cls.parse(url, timeout)

    @property
    def target(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{self.target}"
