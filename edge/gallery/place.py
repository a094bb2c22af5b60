"""Where a gallery is: a directory of this machine, or a collection of Milvus."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryError

SCHEME = "milvus:"
DEFAULT_GALLERY = "gallery"
_FORM = re.compile(r"(?P<uri>https?://[^/]+|[^:]*?\.db)(?:/(?P<gallery>[^/]+))?(?:/(?P<site>[^/]+))?/?")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class MilvusPlace:
    """A gallery in Milvus, or the part of it that is of one site.

    uri: a Milvus Lite file (ends in .db) or the address of a server. site: None for all of them.
    """

    uri: str
    gallery: str = DEFAULT_GALLERY
    site: str | None = None

    @property
    def embedded(self) -> bool:
        """Whether it is a file of Milvus Lite, which one process at a time may open."""
        return "://" not in self.uri

    def __str__(self) -> str:
        site = "" if self.site is None else f"/{self.site}"
        return f"{SCHEME}{self.uri}/{self.gallery}{site}"


Place = Path | MilvusPlace


def parse_place(text: str) -> Place:
    """`milvus:FILE.db` or `milvus:http://HOST:PORT`, then `/GALLERY` and `/SITE` if wanted; all else is a directory.

    Raises GalleryError where it begins like the first and goes on like neither.
    """
    if not text.startswith(SCHEME):
        return Path(text)
    found = _FORM.fullmatch(text.removeprefix(SCHEME))
    gallery = DEFAULT_GALLERY if found is None else found["gallery"] or DEFAULT_GALLERY
    if found is None or not _IDENTIFIER.fullmatch(gallery):
        raise GalleryError(
            f"{text}: not a gallery in Milvus; write milvus:FILE.db or milvus:http://HOST:19530, then /GALLERY "
            "(letters, digits, _) and /SITE if wanted"
        )
    return MilvusPlace(found["uri"], gallery, found["site"])
