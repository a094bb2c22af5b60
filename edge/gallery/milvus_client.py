"""The few calls of Milvus that a gallery needs, each complete and strongly consistent or a StoreUnavailableError."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edge.errors import GalleryError, MissingExtraError
from edge.gallery.place import MilvusPlace
from edge.gallery.store import StoreUnavailableError
from edge.types import Floats

TOKEN_VARIABLE = "ARCEDGE_MILVUS_TOKEN"  # noqa: S105 - the name of a variable
SECONDS = 20.0
"""A question to a server that takes longer has failed."""

WRITE_SECONDS = 600.0
"""A write, or the loading of a collection, that takes longer has failed: with it Milvus Lite builds the index of up to
100,000 rows."""

MAX_TEXT = 65_535
"""Bytes a text field of Milvus holds."""

PAGE = 500
"""Rows sent or fetched at a time: with crops some 20 MB, below the 64 MB a message may have."""

LARGE_PAGE = 4_000
"""The same without crops. Milvus Lite looks at all rows anew for each page."""

_NOT_LOADED = 101
_LOADS = 5  # Another client may release what was loaded; a fresh Milvus Lite asked by two at once may forget it.
_NOT_OPENED = "Open local milvus failed"
Row = dict[str, Any]
_Given = TypeVar("_Given")


class Client:
    """A connection to one server or Milvus Lite file. Raises MissingExtraError or StoreUnavailableError."""

    def __init__(self, place: MilvusPlace) -> None:
        try:
            import grpc
            import pymilvus
        except ImportError as error:
            raise MissingExtraError("pymilvus", "milvus") from error
        # What goes wrong is raised; the logs would say it again, with tracebacks.
        for name in ("pymilvus", "milvus_lite", "grpc"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._place = place
        # A file of this machine cannot be away: its questions take as long as they take.
        self._seconds = WRITE_SECONDS if place.embedded else SECONDS
        self._milvus: Any = pymilvus
        self._errors: tuple[type[Exception], ...] = (pymilvus.MilvusException, grpc.RpcError)
        if place.embedded:
            _check_lite(place)
        new = place.embedded and not Path(place.uri).exists()
        self._client: Any = self._told(
            lambda: pymilvus.MilvusClient(
                place.uri,
                token=os.environ.get(TOKEN_VARIABLE, ""),
                timeout=SECONDS,
                dedicated=not place.embedded,
                # pymilvus asks every 10 s whether the server is there; Milvus Lite hangs up on who asks so often.
                grpc_options={"grpc.keepalive_time_ms": 300_000},
            )
        )
        if new:
            Path(place.uri).chmod(0o700)  # as a gallery in a directory

    def has(self, collection: str) -> bool:
        """Whether the collection is there."""
        return bool(self._told(lambda: self._client.has_collection(collection, timeout=self._seconds)))

    def create(self, collection: str, fields: Mapping[str, Row], indexes: Mapping[str, Row], about: str) -> None:
        """Makes a collection and loads it.

        fields: by name, the keyword arguments of pymilvus' `add_field`, `datatype` as the name of a DataType. indexes:
        by name of a field, those of `add_index`.
        """
        schema = self._milvus.MilvusClient.create_schema(auto_id=False, description=about)
        for name, options in fields.items():
            kind = getattr(self._milvus.DataType, options["datatype"])
            schema.add_field(name, **{**options, "datatype": kind})
        params = self._told(lambda: self._client.prepare_index_params())
        for name, options in indexes.items():
            params.add_index(name, **options)
        self._told(
            lambda: self._client.create_collection(
                collection, schema=schema, consistency_level="Strong", timeout=self._seconds
            )
        )
        # Nothing to wait for: there are no rows yet.
        self._told(lambda: self._client.create_index(collection, params, timeout=self._seconds, sync=False))
        self._told(lambda: self._client.load_collection(collection, timeout=WRITE_SECONDS))

    def drop(self, collection: str) -> None:
        """Nothing happens where it is not there."""
        self._told(lambda: self._client.drop_collection(collection, timeout=self._seconds))

    def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        """Writes rows, in place of those with the same keys; each row is there as a whole or not at all."""
        for start in range(0, len(rows), PAGE):
            part = list(rows[start : start + PAGE])
            self._told(lambda part=part: self._client.upsert(collection, part, timeout=WRITE_SECONDS))  # type: ignore[misc]

    def delete(self, collection: str, where: str) -> None:
        """Deletes what an expression of Milvus says."""
        self._on(collection, lambda: self._client.delete(collection, filter=where, timeout=WRITE_SECONDS))

    def delete_keys(self, collection: str, keys: Sequence[str] | Sequence[int]) -> None:
        """Deletes the rows that have these primary keys."""
        for start in range(0, len(keys), PAGE):
            part = list(keys[start : start + PAGE])
            self._on(collection, lambda part=part: self._client.delete(collection, ids=part, timeout=WRITE_SECONDS))  # type: ignore[misc]

    def get(self, collection: str, keys: Sequence[str] | Sequence[int], fields: Sequence[str]) -> list[Row]:
        """The rows that have these primary keys, in no order; keys are of letters and digits."""
        found: list[Row] = []
        for start in range(0, len(keys), PAGE):
            part = list(keys[start : start + PAGE])
            found += self._on(
                collection,
                lambda part=part: self._client.get(  # type: ignore[misc]
                    collection, ids=part, output_fields=list(fields), timeout=self._seconds, consistency_level="Strong"
                ),
            )
        return found

    def count(self, collection: str, where: str) -> int:
        """How many rows an expression holds for."""
        rows = self._on(
            collection,
            lambda: self._client.query(
                collection, filter=where, output_fields=["count(*)"], timeout=WRITE_SECONDS, consistency_level="Strong"
            ),
        )
        return int(rows[0]["count(*)"])

    def rows(self, collection: str, where: str, fields: Sequence[str]) -> Iterator[Row]:
        """Every row an expression holds for, in the order of primary keys."""
        for page in self.pages(collection, where, fields, PAGE if "crop" in fields else LARGE_PAGE):
            yield from page

    def pages(self, collection: str, where: str, fields: Sequence[str], size: int) -> Iterator[list[Row]]:
        """The same, up to `size` at a time: every key of a page is greater than those of the pages before."""
        pages = self._on(
            collection,
            lambda: self._client.query_iterator(
                collection,
                batch_size=size,
                filter=where,
                output_fields=list(fields),
                timeout=self._seconds,
                consistency_level="Strong",
            ),
        )
        try:
            while page := self._on(collection, pages.next):
                yield list(page)
        finally:
            pages.close()

    def search(
        self, collection: str, probes: Floats, limit: int, where: str, fields: Sequence[str], params: Row
    ) -> list[list[Row]]:
        """For each of (F, D) probes, up to `limit` rows, best first, as {"distance": …, "entity": {field: …}}."""
        return list(
            self._on(
                collection,
                lambda: self._client.search(
                    collection,
                    data=list(probes),
                    anns_field="vector",
                    limit=limit,
                    filter=where,
                    output_fields=list(fields),
                    search_params=params,
                    timeout=self._seconds,
                    consistency_level="Strong",
                ),
            )
        )

    def flush_and_compact(self, collection: str) -> None:
        """Asks Milvus to write what it holds in memory and to leave out what was deleted."""
        self._told(lambda: self._client.flush(collection, timeout=WRITE_SECONDS))
        self._told(lambda: self._client.compact(collection, timeout=WRITE_SECONDS))

    def close(self) -> None:
        """Calling it again does nothing."""
        self._client.close()

    def _on(self, collection: str, call: Callable[[], _Given]) -> _Given:
        """A call to a collection, which is loaded first where the server has been started anew."""
        for _ in range(_LOADS):
            try:
                return self._told(call)
            except StoreUnavailableError as error:
                if getattr(error.__cause__, "code", None) != _NOT_LOADED:
                    raise
            self._told(lambda: self._client.load_collection(collection, timeout=WRITE_SECONDS))
        return self._told(call)

    def _told(self, call: Callable[[], _Given]) -> _Given:
        """Milvus' errors as the port's."""
        try:
            return call()
        except self._errors as error:
            # A call that ran out of time comes as gRPC's own error.
            said = error.details() if hasattr(error, "details") else getattr(error, "message", error)
            reason = " ".join(str(said).split())
            if reason == _NOT_OPENED:
                reason = "another process has the file open, or it cannot be read; several at once need a server"
            raise StoreUnavailableError(f"{self._place}: Milvus cannot be used now ({reason})") from error


def _check_lite(place: MilvusPlace) -> None:
    """Raises MissingExtraError or GalleryError for what pymilvus would only log."""
    try:
        import milvus_lite  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("milvus-lite", "milvus") from error
    path = Path(place.uri)
    if path.exists() and not path.is_dir():
        raise GalleryError(f"{place}: not a file of this Milvus Lite, which keeps a directory under that name")
    if not path.absolute().parent.is_dir():
        raise GalleryError(f"{place}: no such folder as {path.parent}")
