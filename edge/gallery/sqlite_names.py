"""People of a SQLite gallery by name: a token finds them, a sealed text says who they are."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from edge.errors import GalleryError
from edge.gallery.cipher import Cipher


@dataclass(frozen=True, slots=True)
class Names:
    """Of one gallery, which stands at `address`."""

    connection: sqlite3.Connection
    cipher: Cipher
    address: str

    def token(self, name: str) -> bytes:
        """By which a name is found."""
        return self.cipher.token(name.encode(), "name")

    def opened(self, sealed: bytes) -> str:
        """The name that a row keeps."""
        return self.cipher.open(sealed, "name").decode()

    def number(self, name: str) -> int:
        """Raises GalleryError where nobody has the name."""
        row = self.connection.execute("SELECT id FROM identity WHERE token = ?", (self.token(name),)).fetchone()
        if row is None:
            raise GalleryError(f"{self.address}: nobody here is called {name!r}; see: edge gallery list")
        return int(row[0])

    def number_of_new(self, name: str, now: float) -> int:
        """Of somebody who is there from now on, if not before."""
        self.connection.execute(
            "INSERT OR IGNORE INTO identity (token, name, created) VALUES (?, ?, ?)",
            (self.token(name), self.cipher.seal(name.encode(), "name"), now),
        )
        return self.number(name)
