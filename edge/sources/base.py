"""What every source is."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from edge.types import Frame

_ENTRY = r"(\w*?(?:user|usr|login|pas|pwd|token|secret|key|auth)\w*=)"
_IN_PATH = re.compile(_ENTRY + r".*?(?=_\w+=|[&/]|$)", re.IGNORECASE)
_IN_QUERY = re.compile(_ENTRY + r"[^&;]*", re.IGNORECASE)
"""How cameras take user and password besides: /user=admin_password=…_channel=1, or /live?usr=admin&pwd=…."""


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """frames: captured; dropped: captured, but a newer one came before the consumer; corrupt: not decodable or empty;
    reconnects: times a lost stream came back.
    """

    frames: int = 0
    dropped: int = 0
    corrupt: int = 0
    reconnects: int = 0


class Source(ABC):
    """An opened stream of frames. Iterate over it, or call `read` until it gives None; a context manager.

    name: the user's for it, else as typed, without a password. live: frames come whether or not anybody takes them.
    moving: one frame shows the moment after the last. length: frames to come in all, None where unknown. fps: nominal
    rate. ended: the last `poll` gave None because nothing will come any more.
    """

    name: str
    live: bool
    moving = True
    length: int | None
    fps: float
    ended = False

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame; blocks until there is one. None at the end, or once `stop` was called."""

    def poll(self) -> Frame | None:
        """The next frame, if it can be had without waiting for a camera; sets `ended`."""
        frame = self.read()
        self.ended = frame is None
        return frame

    def listen(self, wake: Callable[[], None]) -> None:
        """Calls `wake`, from any thread, whenever a `poll` that gave None is worth repeating."""
        return

    @abstractmethod
    def stop(self) -> None:
        """Makes the `read` that waits, and every later one, give None. From any thread or signal handler."""

    @abstractmethod
    def counts(self) -> SourceCounts:
        """Up to now."""

    @abstractmethod
    def close(self) -> None:
        """Frees camera, file and thread; calling it again does nothing."""

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def without_password(name: str) -> str:
    """The name of a source fit for logs and events: user and password of a URL are left out, wherever it has them."""
    if "://" not in name:
        return name
    try:
        parts = urlsplit(name)
    except ValueError:  # as of http://[::1, of which nothing says where the password ends
        return f"{name.partition('://')[0]}://***"
    path, query = _IN_PATH.sub(r"\1***", parts.path), _IN_QUERY.sub(r"\1***", parts.query)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, query=query))
