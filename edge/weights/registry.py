"""`model_weights/registry.toml`: weights of other parties that a user may prefer. None of them ships with arcedge."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.contract import ModelContract
from edge.errors import ContractError, InputError
from edge.weights.digests import Digest
from edge.weights.shipped import FOLDER

REGISTRY = FOLDER / "registry.toml"
MAX_UNSTATED_BYTES = 16 << 20
"""The most that is taken for weights whose size the registry does not state."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TEACHER = "teacher"
"""Role of a model that only training asks: no engine opens it, so that it has no contract."""
_REQUIRED = ("role", "file", "about", "origin", "licence")
_OPTIONAL = ("contract", "url", "by_hand", "sha256", "git_blob_sha1", "size", "archive")


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file that holds the weights as `member`. size: bytes."""

    url: str
    sha256: Digest
    size: int
    member: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Weights of another party.

    file: the name they have in the cache. about: what they are and what arcedge uses them for. origin: the project they
    come from, in words. size: bytes, None where it is not known. url: where they are downloaded, None where `archive`
    holds them or no public address is known; `by_hand` then says how a user gets them. contract: None for a teacher's.
    """

    name: str
    role: str
    file: str
    about: str
    origin: str
    licence: str
    digest: Digest
    contract: ModelContract | None
    size: int | None = None
    url: str | None = None
    archive: Archive | None = None
    by_hand: str = ""

    @property
    def address(self) -> str | None:
        """Where a download begins; None where there is no public address."""
        return self.archive.url if self.archive is not None else self.url


def read_registry(path: Path = REGISTRY) -> dict[str, Entry]:
    """Name → entry, in the file's order. Raises InputError, naming the entry, where the file does not make sense."""
    tables = _read_toml(path).get("weights", {})
    if not isinstance(tables, dict) or not tables:
        raise InputError(f"{path}: holds no [weights.NAME] tables")
    entries = {name: _named_entry(path, name, values) for name, values in tables.items()}
    files = [entry.file for entry in entries.values()]
    if len(set(files)) != len(files):
        raise InputError(f"{path}: two entries have the same file name")
    return entries


def find_entry(name: str) -> Entry:
    """The entry of a name. Raises InputError that lists the names there are."""
    entries = read_registry()
    if name not in entries:
        raise InputError(f"{name}: not in the registry; it has {', '.join(entries)}")
    return entries[name]


def _named_entry(path: Path, name: str, values: Any) -> Entry:
    try:
        return _entry(name, values)
    except (ContractError, InputError, TypeError) as error:
        raise InputError(f"{path}: weights.{name}: {error}") from error


def _entry(name: str, values: Any) -> Entry:
    if not isinstance(values, dict):
        raise InputError("not a table")
    if missing := [key for key in _REQUIRED if not values.get(key)]:
        raise InputError(f"{missing[0]} is missing")
    if unknown := sorted(set(values) - {*_REQUIRED, *_OPTIONAL}):
        raise InputError(f"unknown entry {unknown[0]!r}")
    if not _FILE_NAME.fullmatch(values["file"]):
        raise InputError(f"file is {values['file']!r}; it must be a plain file name")
    if (values["role"] == TEACHER) == bool(values.get("contract")):
        raise InputError("a teacher has no contract" if values.get("contract") else "contract is missing")
    contract = (
        None if values["role"] == TEACHER else ModelContract.from_dict({"role": values["role"], **values["contract"]})
    )
    archive = _archive(values["archive"]) if "archive" in values else None
    if sum((archive is not None, bool(values.get("url")), bool(values.get("by_hand")))) != 1:
        raise InputError("give exactly one of url, archive and by_hand")
    size = values.get("size")
    if size is not None and not (isinstance(size, int) and size > 0):
        raise InputError(f"size is {size!r}; it must be a number of bytes")
    return Entry(
        name=name,
        role=values["role"],
        file=values["file"],
        about=values["about"],
        origin=values["origin"],
        licence=values["licence"],
        digest=_digest(values),
        contract=contract,
        size=size,
        url=values.get("url"),
        archive=archive,
        by_hand=values.get("by_hand", ""),
    )


def _digest(values: Mapping[str, Any]) -> Digest:
    stated = [key for key in ("sha256", "git_blob_sha1") if key in values]
    if len(stated) != 1:
        raise InputError("give exactly one of sha256 and git_blob_sha1")
    return Digest("sha256" if stated == ["sha256"] else "git-blob-sha1", values[stated[0]])


def _archive(values: Mapping[str, Any]) -> Archive:
    if missing := [key for key in ("url", "sha256", "size", "member") if not values.get(key)]:
        raise InputError(f"archive: {missing[0]} is missing")
    return Archive(values["url"], Digest("sha256", values["sha256"]), values["size"], values["member"])


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # the standard library has no TOML reader before 3.11
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from error
