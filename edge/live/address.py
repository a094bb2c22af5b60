"""Where the live page listens: parsed, and whether anybody but this machine can reach it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from edge.errors import InputError

LOOPBACK = "127.0.0.1"

_FORM = re.compile(r"(?:(?P<host>\[[^\]]+\]|[^:\[\]]+):)?(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """host: an IP address or a name, an IPv6 address without brackets. port: 0 lets the system choose a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def url(self) -> str:
        """What to type into a browser; of an address that stands for all of the machine's, with the machine's name."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def parse_address(text: str) -> Address:
    """[HOST:]PORT, an IPv6 address in brackets; without a host, this machine alone. Raises InputError."""
    found = _FORM.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise InputError(f"--serve {text}: not [HOST:]PORT, as in 8080, 0.0.0.0:8080 or [::1]:8080")
    host = (found["host"] or LOOPBACK).strip("[]")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise InputError(f"--serve {text}: {host} is no IPv6 address") from error
    return Address(host, int(found["port"]))
