"""All weights at a glance: those that ship, by their cards, and those of the registry, fetched or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edge.errors import InputError
from edge.weights.cache import cached_path
from edge.weights.cards import CARD_SUFFIX, Card, read_card, read_cards
from edge.weights.registry import Entry, read_registry
from edge.weights.shipped import FOLDER, Weights, list_weights

State = Literal["ships", "fetched", "to fetch", "by hand"]


@dataclass(frozen=True, slots=True)
class Row:
    """state: "by hand" where there is no public address. size: bytes, where known."""

    name: str
    role: str
    state: State
    size: int | None
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def inventory(folder: Path = FOLDER) -> list[Row]:
    """Shipped weights by name, then the registry in its order."""
    cards = {card.file: card for card in read_cards(folder)}
    rows = [_shipped_row(weights, cards.get(weights.path.name)) for weights in list_weights(folder)]
    return rows + [_registry_row(entry) for entry in read_registry().values()]


def shipped_card(name: str) -> Card | None:
    """The card of shipped weights; None where no shipped weights have that name."""
    path = FOLDER / (name + CARD_SUFFIX)
    return read_card(path) if Path(name).name == name and path.is_file() else None


def faults(names: Sequence[str] = (), folder: Path = FOLDER) -> dict[str, str | None]:
    """Name → how the file differs from what card or registry say, None where it does not.

    names: which; without any, everything that ships or was fetched. Raises InputError for a name that is not known.
    """
    shipped = {weights.name: weights for weights in list_weights(folder)}
    cards = {card.name: card for card in read_cards(folder)}
    entries = read_registry()
    everything = sorted({*shipped, *cards}) + [name for name, entry in entries.items() if cached_path(entry).is_file()]
    found: dict[str, str | None] = {}
    for name in names or everything:
        if name in cards:
            found[name] = cards[name].fault()
        elif name in shipped:
            found[name] = "has no card"
        elif name in entries:
            found[name] = _fetched_fault(entries[name])
        else:
            raise InputError(f"{name}: no such weights; there are {', '.join([*sorted(shipped), *entries])}")
    return found


def _shipped_row(weights: Weights, card: Card | None) -> Row:
    licence = card.licence if card is not None else "no card"
    return Row(weights.name, weights.role, "ships", weights.path.stat().st_size, licence)


def _registry_row(entry: Entry) -> Row:
    state: State = "to fetch" if entry.address else "by hand"
    return Row(entry.name, entry.role, "fetched" if cached_path(entry).is_file() else state, entry.size, entry.licence)


def _fetched_fault(entry: Entry) -> str | None:
    path = cached_path(entry)
    if not path.is_file():
        return "not fetched"
    return None if entry.digest.matches(path) else f"does not have {entry.digest}; fetch it again"
