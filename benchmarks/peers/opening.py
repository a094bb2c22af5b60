"""Opening the peers somebody asked for: those that are missing say what to install or bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from benchmarks.peers import PEERS
from benchmarks.peers.base import Peer, PeerMissingError, PeerModels
from edge.errors import InputError


@contextmanager
def open_peers(names: Sequence[str], folder: Path | None) -> Iterator[tuple[dict[str, Peer], list[str]]]:
    """The peers that open here, by name, and a line for each that does not. Raises InputError for a wrong name."""
    if not names:
        yield {}, []
        return
    if unknown := [name for name in names if name not in PEERS]:
        raise InputError(f"no peer is called {unknown[0]!r}; there is {', '.join(PEERS)}")
    if folder is None:
        raise InputError("--peer needs --peer-models: the folder with the peers' model files")
    models = PeerModels(folder)
    opened: dict[str, Peer] = {}
    missing = []
    try:
        for name in names:
            module, _, function = PEERS[name].partition(":")
            try:
                opened[name] = getattr(import_module(module), function)(models)
            except PeerMissingError as error:
                missing.append(f"not measured: {error}")
        yield opened, missing
    finally:
        for peer in opened.values():
            peer.close()
