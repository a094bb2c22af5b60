"""The live page of one run, put together."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.analyze import FaceAnalyzer
from edge.gallery import Gallery, Snapshot
from edge.live.address import Address
from edge.live.board import Board
from edge.live.enrolling import Enroller
from edge.live.gallery import WatchedGallery
from edge.live.guard import Guard
from edge.live.routes import Site
from edge.live.server import LiveServer, listen
from edge.live.token import Token
from edge.live.watched import STALE_AFTER, Models, Watched
from edge.pipeline import Pipeline
from edge.sources import Source


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Where the page is, who may see it, and by which further names it is reached. stale_after: see STALE_AFTER."""

    address: Address
    token: Token | None = None
    names: Sequence[str] = ()
    stale_after: float = STALE_AFTER


@dataclass(frozen=True, slots=True)
class Opening:
    """What an enrolment opens, in a thread of its own; see `Enroller`."""

    analyzer: Callable[[], FaceAnalyzer]
    gallery: Callable[[], Gallery]


@dataclass(slots=True)
class LivePage:
    """Takes the port at once. board: a sink for the pipeline. gallery: what the pipeline is to read instead.

    Raises InputError where the port cannot be had.
    """

    options: PageOptions
    sources: Sequence[Source]
    read_gallery: Callable[[], Snapshot]
    threshold: float
    board: Board = field(init=False)
    gallery: WatchedGallery = field(init=False)
    address: Address = field(init=False)
    _socket: socket.socket = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.board = Board([source.name for source in self.sources], self.threshold)
        self.gallery = WatchedGallery(self.read_gallery, self.board.gallery_is)
        self._socket, self.address = listen(self.options.address)

    def of(self, pipeline: Pipeline, models: Models, opening: Opening) -> LiveServer:
        """The server, to be entered; it tells of a pipeline that writes to `board`."""
        watched = Watched(
            self.sources,
            self.board,
            self.gallery,
            models,
            summary=lambda: pipeline.summary,
            under_way=lambda: pipeline.under_way,
            stale_after=self.options.stale_after,
        )
        guard = Guard(self.address, self.options.token, self.options.names)
        enroller = Enroller(self.board, opening.analyzer, opening.gallery, models.threshold)
        return LiveServer(self._socket, Site(watched, guard, enroller))
