"""What is known of the gallery while the camera reads it: how large it is, and whether it can be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.errors import GalleryError
from edge.gallery import Snapshot


class WatchedGallery:
    """Passes the camera's readings on. changed: gets everybody's names whenever the gallery is another one than before.

    identities, vectors: of the last that succeeded; readable: whether the last did.

    The snapshot itself is not kept: it would hold files that a change of the gallery has replaced.
    """

    def __init__(
        self, read: Callable[[], Snapshot], changed: Callable[[Sequence[str]], object] = lambda names: None
    ) -> None:
        self._read = read
        self._changed = changed
        self._names: tuple[str, ...] | None = None
        self.identities = 0
        self.vectors = 0
        self.readable = True

    def __call__(self) -> Snapshot:
        try:
            snapshot = self._read()
        except GalleryError:
            self.readable = False
            raise
        if snapshot.names is not self._names:
            self._names = snapshot.names
            self._changed(snapshot.names)
        self.identities, self.vectors, self.readable = len(snapshot.names), len(snapshot), True
        return snapshot
