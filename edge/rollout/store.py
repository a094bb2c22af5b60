"""Bundles on a device: folders named by digest, and `current`, a link to one of them that is changed in one step.

    STORE/current -> bundles/DIGEST      what edge run is given
    STORE/previous -> bundles/DIGEST     what was current before
    STORE/bundles/DIGEST/                whole, checked, never changed but to mend what a disk has lost
    STORE/incoming/DIGEST/               on its way; a download goes on from here
    STORE/switched                       written after each change, for whoever restarts the camera
    STORE/refused.json                   what failed on this device, and why

A folder gets its name under bundles/ by one rename, after every byte was checked and is on the disk. So whenever the
process is killed, or the power fails, `current` names a whole bundle.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge import __version__
from edge.errors import BundleError, InputError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Store:
    """A folder of bundles. What changes it needs `alone`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundles = folder / "bundles"
        self.incoming = folder / "incoming"
        self._refused = folder / "refused.json"

    def prepare(self) -> None:
        """Makes the folders. Raises InputError where it cannot."""
        try:
            for folder in (self.bundles, self.incoming):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot hold bundles ({error.strerror}); name another folder") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes the store meanwhile.

        Raises BundleError where somebody does, InputError where the disk does not take what is written.
        """
        self.prepare()
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BundleError(
                    f"{self.folder}: another edge rollout is at work there; wait for it to end"
                ) from error
            try:
                if self.current is not None:
                    self.announce()  # a kill may have come before it
                yield
            except OSError as error:
                reason = error.strerror or error
                raise InputError(
                    f"{error.filename or self.folder}: cannot be written ({reason}); the bundle in use stays"
                ) from error

    @property
    def current(self) -> str | None:
        """Digest of the bundle in use; None where none was installed."""
        return self._linked("current")

    @property
    def previous(self) -> str | None:
        """Digest of the bundle that was in use before; None where there is none.

        A kill between both links leaves this one on the current bundle; then it is the only other one that is kept.
        """
        current, linked = self.current, self._linked("previous")
        others = [digest for digest in self.kept() if digest != current and digest not in self.refused()]
        if linked is None or linked == current:
            return others[0] if current is not None and len(others) == 1 else None
        return linked

    def path(self, digest: str) -> Path:
        """Where a bundle is, or would be."""
        return self.bundles / digest

    def kept(self) -> tuple[str, ...]:
        """Digests of the bundles that lie here whole, by name."""
        there = self.bundles.iterdir() if self.bundles.is_dir() else ()
        return tuple(sorted(path.name for path in there if _DIGEST.fullmatch(path.name)))

    def take_in(self, digest: str) -> None:
        """Gives a checked folder of `incoming` its place, once it is on the disk.

        Where the bundle is there already, and damaged, its files are replaced one by one: `current` may name it.
        """
        arrived, place = self.incoming / digest, self.path(digest)
        for path in [*arrived.rglob("*"), arrived]:
            _sync(path)
        if not place.exists():
            arrived.rename(place)
            _sync(self.bundles)
            return
        for path in filter(Path.is_file, arrived.rglob("*")):
            target = place / path.relative_to(arrived)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            _sync(target.parent)

    def switch(self, digest: str) -> None:
        """Makes a bundle the current one, in one step; what was current is then the previous one."""
        before = self.current
        if before is not None and before != digest:
            self._link("previous", before)
        self._link("current", digest)
        self.announce()

    def announce(self) -> None:
        """Writes which bundle is current where that is not written yet; a link itself cannot be watched."""
        file, text = self.folder / "switched", f"{self.current}\n"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")

    def refused(self) -> dict[str, str]:
        """Why bundles failed here, by digest. Those that failed under another version of arcedge may be tried again."""
        return {digest: entry["reason"] for digest, entry in self._notes().items() if entry["arcedge"] == __version__}

    def refuse(self, digest: str, reason: str) -> None:
        """Notes that a bundle failed."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._note(self._notes() | {digest: {"reason": reason, "arcedge": __version__, "time": now}})

    def forgive(self, digest: str) -> None:
        """Forgets that a bundle failed."""
        notes = self._notes()
        if notes.pop(digest, None) is not None:
            self._note(notes)

    def discard(self, digest: str) -> None:
        """Removes a bundle; a kill meanwhile leaves no half of it under its name."""
        going = self.incoming / f".{digest}.gone"
        shutil.rmtree(going, ignore_errors=True)
        if self.path(digest).exists():
            self.path(digest).rename(going)
        shutil.rmtree(going, ignore_errors=True)
        shutil.rmtree(self.incoming / digest, ignore_errors=True)

    def prune(self) -> None:
        """Removes all but the current and the previous bundle, and what never arrived."""
        wanted = {self.current, self.previous}
        for digest in self.kept():
            if digest not in wanted:
                self.discard(digest)
        for path in self.incoming.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    def _linked(self, name: str) -> str | None:
        try:
            digest = (self.folder / name).readlink().name
        except OSError:
            return None
        return digest if _DIGEST.fullmatch(digest) and self.path(digest).is_dir() else None

    def _link(self, name: str, digest: str) -> None:
        part = self.folder / f".{name}.part"
        part.unlink(missing_ok=True)
        part.symlink_to(Path(self.bundles.name) / digest)
        part.replace(self.folder / name)
        _sync(self.folder)

    def _notes(self) -> dict[str, dict[str, str]]:
        try:
            values: Any = json.loads(self._refused.read_text(encoding="utf-8"))
            return {
                str(digest): {key: str(entry[key]) for key in ("reason", "arcedge", "time")}
                for digest, entry in values.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # lost notes cost one more test of a bundle that failed

    def _note(self, notes: dict[str, dict[str, str]]) -> None:
        part = self.folder / ".refused.part"
        part.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
        _sync(part)
        part.replace(self._refused)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
