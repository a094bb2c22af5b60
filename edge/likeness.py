"""Which pictures of one person are not like the rest: groups of vectors, linked where two are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.types import Floats


def groups(vectors: Floats, least: float) -> npt.NDArray[np.int64]:
    """(N,) group of each of (N, D) vectors of unit length: linked by a chain of cosines of at least `least`.

    Single linkage: a person's face at twenty and at sixty may be joined by the pictures between. Groups are numbered by
    their first vector.
    """
    found = np.full(len(vectors), -1, np.int64)
    for first in range(len(vectors)):
        if found[first] >= 0:
            continue
        found[first] = first
        frontier = np.array([first])
        while len(frontier):
            linked = (vectors[frontier] @ vectors.T >= least).any(axis=0) & (found < 0)
            found[linked] = first
            frontier = np.flatnonzero(linked)
    return found


@dataclass(frozen=True, slots=True)
class Kinship:
    """How a picture stands to the others of its person.

    nearest: highest cosine to another of them, of a stray to one outside its own group; None where there is none.
    stray: whether it is outside the person's group.
    """

    nearest: float | None
    stray: bool


def kinships(new: Floats, known: Floats, least: float) -> list[Kinship]:
    """Of each of (N, D) new vectors of a person, of whom (K, D) are known; cosines from `least` on link two.

    The person is the group with most of the known vectors, or the largest where none is known. Wrong pictures that
    vouch for each other are a smaller group; where groups are as large, nobody can say which is the person, and all of
    them are strays.
    """
    every = np.concatenate([known, new])
    found = groups(every, least)
    names, sizes = np.unique(found[: len(known)] if len(known) else found, return_counts=True)
    largest = set(names[sizes == sizes.max(initial=0)].tolist())
    kin = []
    for place in range(len(known), len(every)):
        stray = largest != {int(found[place])}
        others = every[found != found[place]] if stray else np.delete(every, place, axis=0)
        kin.append(Kinship(float((others @ every[place]).max()) if len(others) else None, stray))
    return kin
