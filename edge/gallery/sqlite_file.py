"""A gallery's SQLite file, open: what it says of itself, reads of one moment, changes of one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
        self._opened = schema.connect(self._file)
        self._within = False
        self.identifier = b""
        try:
            meta = looking_again(ChangedMeanwhileError)(self._meta)()
            self.binding = Binding.from_json(meta["binding"])
            self.identifier = bytes.fromhex(meta["gallery"])
            self._cipher = self._unlock(meta.get("proof"), key)
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
        change = Change(revised)
        with self._translated("written"), schema.transaction(self._connection):
            if not copying and (origin := self._origin_text()) is not None:
                centre = json.loads(origin)["centre"]
                raise GalleryError(f"{self.address}: is a copy of {centre}; make the change there and pull it")
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
        if self._opened.writable or self._within:
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
            fresh = schema.connect(self._file)
            self.close()
            self._opened = fresh
            if self.identifier and self._meta()["gallery"] != self.identifier.hex():
                raise GalleryError(f"{self.address}: another gallery has taken its place; start again")

    @contextmanager
    def _translated(self, deed: str) -> Iterator[None]:
        """SQLite's errors as the port's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnavailableError(f"{self.address}: cannot be {deed} ({error})") from error
        except sqlite3.DatabaseError as error:
            raise GalleryError(f"{self.address}: damaged ({error}); restore it from a copy") from error


def proof(cipher: Cipher) -> str:
    """What only the right key opens."""
    return cipher.seal(_PROOF, "proof").hex()
