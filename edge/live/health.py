"""Whether the camera of a container is well: `python -m edge.live.health`, which the images' HEALTHCHECK runs.

The command line of process 1 says where the page is; its /healthz knows whether every camera gives results. Without
--serve there is nobody to ask. It imports nothing heavy: it runs every minute on a small box.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.errors import InputError
from edge.live.address import LOOPBACK, Address, parse_address

FIRST_PROCESS = Path("/proc/1/cmdline")
"""Words that end in NUL. Where --init puts a process of its own in front, its words hold those of `edge run`."""

ANSWER_SECONDS = 10.0


def served_at(command: Sequence[str]) -> Address | None:
    """Where the page of a command line is, None where it has none. Raises InputError."""
    found = None
    for place, word in enumerate(command):
        if word == "--serve":
            found = "".join(command[place + 1 : place + 2])
        elif word.startswith("--serve="):
            found = word.partition("=")[2]
    return None if found is None else parse_address(found)


def ask(address: Address) -> tuple[bool, str]:
    """Whether the run is well, and what it says. One that does not answer is not."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, address.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK, answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{address.url}healthz does not answer: {error}"
    finally:
        connection.close()


def main(first_process: Path = FIRST_PROCESS) -> int:
    """0 where the run is well or has no page, else 1; says why in a line, which `docker inspect` shows."""
    try:
        words = first_process.read_bytes().decode(errors="replace").split("\0")
        address = served_at(words)
    except (OSError, InputError) as error:
        print(f"nothing to ask: {error}")
        return 1
    if address is None:
        print("it runs; whether cameras give pictures is known with --serve only")
        return 0
    well, said = ask(address)
    print(said)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
