"""The index of a roll-out: which bundle all devices should have, and which one a share of them tries first."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urljoin

from edge.bundle import MAX_MANIFEST_BYTES
from edge.errors import InputError
from edge.rollout.canary import is_canary
from edge.weights.download import DownloadOptions, download, shown

NAME = "index.json"
FORMAT = "arcedge-rollout"
VERSION = 1
MAX_BYTES = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle to be had. digest: SHA-256 (hex) of its manifest, which names it; size: bytes of the manifest.

    signed: whether bundle.sig lies beside it. url: of its folder, absolute, or relative to the index.
    """

    digest: str
    size: int
    signed: bool
    url: str

    def __post_init__(self) -> None:
        if not isinstance(self.digest, str) or not _SHA256.fullmatch(self.digest):
            raise ValueError(f"{self.digest!r} is no SHA-256")
        if type(self.size) is not int or not 0 < self.size <= MAX_MANIFEST_BYTES:
            raise ValueError(f"a manifest of {self.size!r} bytes")
        if type(self.signed) is not bool or not isinstance(self.url, str) or not self.url:
            raise ValueError("signed is true or false, url a text")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"digest": self.digest, "size": self.size, "signed": self.signed, "url": self.url}


@dataclass(frozen=True, slots=True)
class Canary:
    """A release that `percent` of the devices take before the others."""

    release: Release
    percent: float

    def __post_init__(self) -> None:
        if isinstance(self.percent, bool) or not isinstance(self.percent, int | float) or not 0 <= self.percent <= 100:
            raise ValueError(f"a share of {self.percent!r} percent")


@dataclass(frozen=True, slots=True)
class Index:
    """What a server offers. base: address or folder the releases' urls are relative to."""

    stable: Release | None
    canary: Canary | None = None
    base: str = ""

    @property
    def name(self) -> str:
        """For messages: without the secrets that an address may hold."""
        return shown(self.base) if "://" in self.base else self.base

    def releases_for(self, device: str) -> tuple[Release, ...]:
        """What a device should have, the first that it does not refuse."""
        chosen = []
        if self.canary is not None and is_canary(device, self.canary.release.digest, self.canary.percent):
            chosen.append(self.canary.release)
        if self.stable is not None and self.stable not in chosen:
            chosen.append(self.stable)
        return tuple(chosen)

    def address(self, release: Release, file: str) -> str:
        """Where a file of a release is: a URL, or a path."""
        if "://" in self.base or "://" in release.url:
            return urljoin(urljoin(self.base, release.url.rstrip("/") + "/"), file)
        return str(Path(self.base).parent / release.url / file)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        canary = self.canary and {**self.canary.release.to_dict(), "percent": self.canary.percent}
        stable = self.stable and self.stable.to_dict()
        return {"format": FORMAT, "version": VERSION, "stable": stable, "canary": canary}

    @classmethod
    def from_bytes(cls, data: bytes, base: str) -> Index:
        """Raises InputError, in one line, for whatever is none."""
        try:
            values: Any = json.loads(data)
            _require_version(values)
            canary = values.get("canary")
            return cls(
                None if values.get("stable") is None else _release(values["stable"]),
                None if canary is None else Canary(_release(canary), canary["percent"]),
                base,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            name = shown(base) if "://" in base else base
            raise InputError(
                f"{name}: no index of a roll-out ({error}); make one with: edge rollout publish"
            ) from error


def read_index(source: str) -> Index:
    """The index at a URL (https; http on this machine alone) or a path; a folder stands for the index in it.

    Raises InputError where there is none, DownloadError where it cannot be brought.
    """
    if "://" not in source:
        path = Path(source) / NAME if Path(source).is_dir() else Path(source)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); name an index.json or a URL") from error
        return Index.from_bytes(data, str(path))
    with TemporaryDirectory(prefix="arcedge-") as folder:
        part = Path(folder) / NAME
        # Never resumed: two halves of two indexes are none.
        download(source, part, MAX_BYTES, size=None, options=DownloadOptions(), progress=lambda _: None)
        return Index.from_bytes(part.read_bytes(), source)


def _require_version(values: Mapping[str, Any]) -> None:
    if (values["format"], values["version"]) != (FORMAT, VERSION):
        raise ValueError("of another format or version")


def _release(values: Mapping[str, Any]) -> Release:
    return Release(values["digest"], values["size"], values["signed"], values["url"])
