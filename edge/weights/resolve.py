"""The file a user means by a name."""

from __future__ import annotations

from pathlib import Path

from edge.errors import InputError
from edge.weights.cache import cached_path
from edge.weights.registry import Entry, read_registry
from edge.weights.shipped import FOLDER, list_weights


def find_weights(name: str | None, role: str, folder: Path = FOLDER) -> Path:
    """A file that is there, else shipped weights, else fetched ones; for None the first shipped of the role.

    role: "embedder", "detector", "landmarker" or "teacher". Fetched weights are given only after their digest was
    checked once more. Raises InputError that lists what there is, or says how to fetch what is not here yet.
    """
    there = list_weights(folder)
    if name is None:
        for weights in there:
            if weights.role == role:
                return weights.path
        raise InputError(f"no default {role} in model_weights ({_holds([w.name for w in there])}); name a file")
    if Path(name).is_file():
        return Path(name)
    for weights in there:
        if name in (weights.name, weights.path.name):
            _require_role(name, weights.role or role, role)
            return weights.path
    registry = folder / "registry.toml"
    entries = read_registry(registry) if registry.is_file() else {}
    if name in entries:
        _require_role(name, entries[name].role, role)
        return _fetched(entries[name])
    raise InputError(
        f"{name}: neither a file nor the name of weights; model_weights {_holds([w.name for w in there])}, "
        f"the registry {_holds(list(entries))}"
    )


def _fetched(entry: Entry) -> Path:
    path = cached_path(entry)
    if not path.is_file():
        raise InputError(f"{entry.name}: not fetched yet; fetch it with: edge weights fetch {entry.name}")
    if not entry.digest.matches(path):
        raise InputError(f"{path}: does not match its digest; fetch it again with: edge weights fetch {entry.name}")
    return path


def _require_role(name: str, role: str, wanted: str) -> None:
    if role != wanted:
        articles = {"embedder": "an"}
        is_a, needed = (f"{articles.get(it, 'a')} {it}" for it in (role, wanted))
        raise InputError(f"{name}: is {is_a}; {needed} is needed")


def _holds(names: list[str]) -> str:
    return "holds " + ", ".join(names) if names else "is empty"
