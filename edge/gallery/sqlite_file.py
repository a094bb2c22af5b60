"""A gallery's SQLite file, open: what it says of itself, reads of one moment, changes of one transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.errors import GalleryError
from edge.gallery import schema
from edge.gallery.binding import Binding
from edge.gallery.cipher import Cipher, Key, Plain, Sealed
from edge.gallery.looking import looking_again
from edge.gallery.read_only import stamp_of
from edge.gallery.sqlite_names import Names
from edge.gallery.store import ChangedMeanwhileError, StoreUnavailableError

COPY = "copy"
"""Key of what says that the gallery is a copy, which only the next pull may change."""

FOLLOW_SECONDS = 1.0
"""Between two looks whether the file is still the one that was opened."""

_PROOF = b"arcedge"


@dataclass(slots=True)
class Change:
    """What a transaction turns out to be: whether more than additions."""

    revised: bool


class SqliteFile:
    """What every store of a gallery in SQLite does alike. `path` is the gallery's directory."""

    def __init__(self, path: Path, key: Key | None = None) -> None:
        """Opens the gallery that is there. Raises GalleryError, also for a key that is missing, wrong or not needed."""
        self.address = str(path)
        self._file = path / schema.DATABASE_NAME
        self._there = identity_of(self._file)
        self._opened = schema.connect(self._file)
        self._within = False
        self._replaced = 0
        self._follow_at = time.monotonic() + FOLLOW_SECONDS
        self._astray: Callable[[], GalleryError] | None = None
        self.identifier = b""
        try:
            meta = looking_again(ChangedMeanwhileError)(self._meta)()
            self.binding = Binding.from_json(meta["binding"])
            self.identifier = bytes.fromhex(meta["gallery"])
            self._proof = meta.get("proof")
            self._cipher = self._unlock(self._proof, key)
        except BaseException:
            self.close()
            raise
        self.private = self._cipher.private

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._opened.connection

    @property
    def _names(self) -> Names:
        return Names(self._connection, self._cipher, self.address)

    def require_writable(self) -> None:
        """Raises GalleryError where this process may only read it."""
        if not self._opened.writable:
            raise GalleryError(
                f"{self.address}: cannot be changed: its file system is read-only, or this user may not write there"
            )

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._read():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def _origin_text(self) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (COPY,)).fetchone()
        return None if row is None else str(row[0])

    def _meta(self) -> dict[str, str]:
        with self._read():
            meta = dict(self._connection.execute("SELECT key, value FROM meta"))
        if not {"binding", "gallery", "generation", "revision"} <= meta.keys():
            raise GalleryError(f"{self.address}: the gallery's own records are missing; restore it from a copy")
        return meta

    def _require_same_key(self) -> dict[str, str]:
        """The gallery's own records. Raises GalleryError where fields are not sealed any more as when it was opened."""
        meta = self._meta()
        if meta.get("proof") != self._proof:
            how = "is not encrypted any more" if "proof" not in meta else "is encrypted with a new key"
            raise GalleryError(f"{self.address}: {how}; start again{' with it' if 'proof' in meta else ''}")
        return meta

    def _unlock(self, proof: str | None, key: Key | None) -> Cipher:
        if proof is None and key is not None:
            raise GalleryError(f"{self.address}: is not encrypted; encrypt it with: edge gallery rekey, or give no key")
        if proof is None or key is None:
            if proof is not None:
                raise GalleryError(
                    f"{self.address}: is encrypted; name its key with --key-file or ARCEDGE_GALLERY_KEY_FILE"
                )
            return Plain()
        cipher = Sealed(key, self.identifier)
        try:
            cipher.open(bytes.fromhex(proof), "proof")
        except (GalleryError, ValueError) as error:
            raise GalleryError(f"{self.address}: this is not the key it was encrypted with") from error
        return cipher

    @contextmanager
    def _change(self, *, revised: bool = False, erasing: bool = False, copying: bool = False) -> Iterator[Change]:
        """A transaction that also tells every process what has become stale.

        Raises GalleryError for a copy of another gallery, unless `copying`.
        """
        self.require_writable()
        self._follow_at = 0.0
        self._follow()
        change = Change(revised)
        with self._translated("written"), schema.transaction(self._connection):
            if not copying and (origin := self._origin_text()) is not None:
                centre = json.loads(origin)["centre"]
                raise GalleryError(f"{self.address}: is a copy of {centre}; make the change there and pull it")
            self._require_same_key()
            yield change
            for key in ("generation", "revision") if change.revised else ("generation",):
                self._connection.execute(
                    "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = ?", (key,)
                )
            if erasing:
                self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('erasing', '1')")

    @contextmanager
    def _read(self) -> Iterator[None]:
        """A read; of a file that is read as it stands, of one moment. Within another one it does nothing of its own."""
        if self._opened.stamp is None or self._within:
            if not self._connection.in_transaction:
                self._follow()
            with self._translated("read"):
                yield
            return
        self._renew()
        self._within = True
        try:
            with self._translated("read"):
                yield
        except Exception as error:
            self._require_still(error)
            raise
        finally:
            self._within = False
        self._require_still()

    def _require_still(self, error: Exception | None = None) -> None:
        """Raises ChangedMeanwhileError where the file has changed, which then is also why it seemed damaged."""
        if self._changed():
            raise ChangedMeanwhileError(f"{self.address}: was changed while it was read; try again") from error

    def _changed(self) -> bool:
        """Whether a file that is read as it stands is not what it was."""
        stamp = self._opened.stamp
        return stamp is not None and stamp_of(self._file) != stamp

    def _renew(self) -> None:
        """Looks at the file again where it has changed."""
        if self._changed():
            self._open_again()

    def _follow(self) -> None:
        """Now and then: goes on with the file that has taken the opened one's place, as where a copy was restored.

        SQLite would read, and write, the one that was removed for as long as it is open. Raises GalleryError where
        there is no gallery any more, or another one.
        """
        now = time.monotonic()
        if now < self._follow_at:
            if self._astray is not None:
                raise self._astray()
            return
        self._follow_at = now + FOLLOW_SECONDS
        there = identity_of(self._file)
        try:
            if there is None:
                raise StoreUnavailableError(f"{self.address}: the gallery is not there any more")
            if there != self._there:
                self._open_again()
        except GalleryError as error:
            self._astray = partial(type(error), str(error))
            raise
        self._astray = None

    def _open_again(self) -> None:
        """Opens what is there now in place of what was. Raises GalleryError; then what is open stays as it is."""
        there = identity_of(self._file)
        fresh = schema.connect(self._file)
        try:
            with self._translated("read"):
                row = fresh.connection.execute("SELECT value FROM meta WHERE key = 'gallery'").fetchone()
        except BaseException:
            fresh.connection.close()
            raise
        if self.identifier and (row is None or row[0] != self.identifier.hex()):
            fresh.connection.close()
            raise GalleryError(f"{self.address}: another gallery has taken its place; start again")
        self.close()
        self._opened = fresh
        if there != self._there:
            self._there, self._replaced = there, self._replaced + 1

    @contextmanager
    def _translated(self, deed: str) -> Iterator[None]:
        """SQLite's errors as the port's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnavailableError(f"{self.address}: cannot be {deed} ({error})") from error
        except sqlite3.DatabaseError as error:
            raise GalleryError(f"{self.address}: damaged ({error}); restore it from a copy") from error


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def proof(cipher: Cipher) -> str:
    """What only the right key opens."""
    return cipher.seal(_PROOF, "proof").hex()
