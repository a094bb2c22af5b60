"""A stranger gets a name: the crops kept of them go through the checks of `edge enroll` into the gallery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.analyze import FaceAnalyzer
from edge.enrolment import EnrolmentOptions, Report, Shot, add
from edge.errors import InputError
from edge.gallery import Gallery
from edge.gallery.gallery import checked_name
from edge.live.board import Board


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody typed. anyway: enrol although there were warnings. keep_crops: see `EnrolmentOptions`."""

    number: int
    name: str
    anyway: bool = False
    keep_crops: bool = False


class Enroller:
    """Opens models and gallery for each enrolment and closes them again: it is rare, and memory stays flat.

    open_analyzer: with the variant that made the gallery's vectors. open_gallery: the camera's gallery once more, as
    each thread needs its own. threshold: cosine from which two faces are one person.
    """

    def __init__(
        self,
        board: Board,
        open_analyzer: Callable[[], FaceAnalyzer],
        open_gallery: Callable[[], Gallery],
        threshold: float,
    ) -> None:
        self._board = board
        self._open_analyzer = open_analyzer
        self._open_gallery = open_gallery
        self._threshold = threshold

    def enrol(self, wish: Wish) -> Report:
        """Adds a stranger's crops under a name; with warnings only those that cause none, unless `anyway`.

        Blocks for as long as models take to load; for a thread of its own. The camera knows the person from its next
        frame. Raises InputError where the stranger is gone, GalleryError for an unfit name or gallery.
        """
        name = checked_name(wish.name)
        stranger = self._board.stranger(wish.number)
        if stranger is None:
            raise InputError("this stranger is forgotten; wait until they are seen again")
        options = EnrolmentOptions(strict=not wish.anyway, keep_crops=wish.keep_crops, threshold=self._threshold)
        with self._open_analyzer() as analyzer, self._open_gallery() as gallery:
            vectors = analyzer.embed(np.stack([look.crop for look in stranger.looks]))
            shots = [
                Shot(look.where, look.crop, vector, look.quality)
                for look, vector in zip(stranger.looks, vectors, strict=True)
            ]
            report = Report(name, len(shots))
            add(gallery, shots, options, report)
        if report.added:
            self._board.drop_stranger(wish.number)
        return report
