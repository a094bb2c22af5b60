"""Compiled engines on disk, each with a passport that says what it is. A plan is executable: it is never just tried.

An engine is found by a key over everything that decides whether it fits, so that a stale or foreign one cannot be
picked up. Before a plan leaves here, its passport must name this key and its digest must be the plan's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge import __version__
from edge.errors import EngineError
from edge.locked_files import new_file, remove_if_left

FORMAT = "arcedge-engine"
VERSION = 1
ENVIRONMENT = "ARCEDGE_CACHE"
_NEW = ".new"
"""How files end that are being written."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """What an engine was, or is to be, built from and for. Two engines with one identity are the same.

    model: SHA-256 (hex) of the ONNX bytes. engine, version: of the builder. device, capability, driver: of the GPU.
    precision: fp32, fp16 or int8. profile: shapes the engine takes. flags: whatever else changes what is built.
    """

    model: str
    engine: str
    version: str
    device: str
    capability: str
    driver: str
    precision: str
    profile: str
    flags: tuple[str, ...] = ()

    def key(self) -> str:
        """SHA-256 (hex) over all of it."""
        text = json.dumps({"format": VERSION, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(self, other: EngineIdentity) -> str | None:
        """The first thing that differs, in words; None where nothing does."""
        mine, others = asdict(self), asdict(other)
        for name, value in mine.items():
            if others[name] != value:
                return f"{name} is {others[name]}, {value} is needed"
        return None


@dataclass(frozen=True, slots=True)
class Passport:
    """What stands beside a plan. `facts`: of the build, JSON-ready: seconds, parity, layers left in float."""

    identity: EngineIdentity
    plan_sha256: str
    plan_size: int
    built: str
    arcedge: str = __version__
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"format": FORMAT, "version": VERSION, "key": self.identity.key(), **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Passport:
        """Raises ValueError, KeyError or TypeError for what is no passport of this version."""
        if values["format"] != FORMAT or values["version"] != VERSION:
            raise ValueError("of another format or version")
        identity = dict(values["identity"])
        identity["flags"] = tuple(identity["flags"])
        passport = cls(
            EngineIdentity(**identity),
            str(values["plan_sha256"]),
            int(values["plan_size"]),
            str(values["built"]),
            str(values["arcedge"]),
            dict(values["facts"]),
        )
        if values["key"] != passport.identity.key():
            raise ValueError("its key is not of its entries")
        return passport


class EngineCache:
    """A folder of plans with passports, that nobody but its owner can write to."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: made where it is missing; None for $ARCEDGE_CACHE, else the user's cache. Raises EngineError."""
        self.folder = folder or default_folder()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.stat()
        except OSError as error:
            raise EngineError(f"{self.folder}: cannot hold engines ({error.strerror}); set {ENVIRONMENT}") from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise EngineError(
                f"{self.folder}: others can write there, and engines are executable; "
                f"chmod go-w it as its owner, or set {ENVIRONMENT} to a folder of your own"
            )

    def paths(self, identity: EngineIdentity) -> tuple[Path, Path]:
        """Where the plan and its passport are, or would be."""
        name = f"{identity.precision}-{identity.capability}-{identity.key()[:32]}"
        return self.folder / f"{name}.plan", self.folder / f"{name}.json"

    def find(self, identity: EngineIdentity) -> tuple[bytes, Passport] | None:
        """The plan and its passport; None where none was built.

        Raises EngineError, in one line, where a plan is there but must not be used.
        """
        plan, paper = self.paths(identity)
        if not plan.exists():
            return None
        try:
            return load_plan(plan, paper, identity)
        except EngineError as error:
            raise EngineError(f"{error}; delete {plan} to have it built again") from error

    def remove(self, identity: EngineIdentity) -> None:
        """Forgets a plan. Raises EngineError where it cannot be taken away."""
        plan, paper = self.paths(identity)
        try:
            plan.unlink(missing_ok=True)
            paper.unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(f"{plan}: must not be used and cannot be removed ({error.strerror})") from error

    def store(self, identity: EngineIdentity, plan: bytes, facts: Mapping[str, Any]) -> Passport:
        """Keeps a plan; a reader sees all of it or nothing. Raises EngineError where the folder cannot be written."""
        passport = Passport(
            identity,
            hashlib.sha256(plan).hexdigest(),
            len(plan),
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            facts=dict(facts),
        )
        plan_path, paper = self.paths(identity)
        text = json.dumps(passport.to_dict(), indent=1, sort_keys=True) + "\n"
        # The plan is looked for first, so it comes last.
        self.write(paper, text.encode())
        self.write(plan_path, plan)
        return passport

    @contextmanager
    def alone(self, identity: EngineIdentity) -> Iterator[None]:
        """Who wants the same engine meanwhile waits, here or in another process or container, so that it is built once.

        The system takes the lock from a process that is killed. Raises EngineError where the folder cannot be written.
        """
        plan, _ = self.paths(identity)
        lock = plan.with_suffix(".lock")
        try:
            file = os.fdopen(os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600), "w")
        except OSError as error:
            raise unusable(lock, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("%s: somebody else opens this model; waiting for the engine", plan)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise unusable(lock, error) from error
            yield

    def write(self, path: Path, data: bytes) -> None:
        """Puts a file in the folder in one step, whoever else writes it. Raises EngineError."""
        try:
            for left in self.folder.glob(f".*{_NEW}"):
                remove_if_left(left)
            file, temporary = new_file(path, _NEW, 0o600)
            with file:
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    temporary.replace(path)
                except OSError:
                    temporary.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise unusable(path, error) from error


def unusable(path: Path, error: OSError) -> EngineError:
    """Where a file of the cache cannot be written."""
    return EngineError(f"{path}: cannot be written ({error.strerror}); set {ENVIRONMENT}")


def load_plan(plan: Path, paper: Path, identity: EngineIdentity) -> tuple[bytes, Passport]:
    """A plan that is what its passport says, and that its passport says is this one. Raises EngineError in one line."""
    try:
        passport = Passport.from_dict(json.loads(paper.read_text(encoding="utf-8")))
    except OSError as error:
        raise EngineError(f"{plan}: has no passport ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{paper}: is no passport ({error})") from error
    if difference := identity.difference(passport.identity):
        raise EngineError(f"{plan}: was built for something else: {difference}")
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise EngineError(f"{plan}: cannot be read ({error.strerror})") from error
    if len(data) != passport.plan_size or hashlib.sha256(data).hexdigest() != passport.plan_sha256:
        raise EngineError(f"{plan}: is not the plan its passport names, it was changed or damaged")
    return data, passport


def default_folder() -> Path:
    """$ARCEDGE_CACHE, else arcedge/engines in the user's cache folder."""
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arcedge" / "engines"
