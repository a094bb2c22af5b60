"""Who is most like a face, as a machine found it that rounds otherwise: what can be relied on, and what cannot.

A GPU sums in another order than a CPU, so that cosines differ in their last digits. What a list says is taken where no
such difference could change it; of everything else the CPU's search decides. So both name the same person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge.types import Floats

NOBODY = -1
"""Place of the nearest identity where there is none."""

ROUNDING = 1e-5
"""More than float32 sums of some hundred products of unit vectors are off, whatever their order."""

_APART = 2 * ROUNDING

Groups = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Of each of F probes the K groups of vectors that are most like it, best first.

    groups: (F, K) int32. A group is one identity's vectors, 2·place in the snapshot's names, or its negatives,
    2·place + 1; -1 after the last one of a gallery that has fewer. scores: (F, K) float32, the best cosine in a group.
    """

    groups: Groups
    scores: Floats

    def __len__(self) -> int:
        """Probes."""
        return len(self.groups)

    def best(self, probe: int) -> tuple[int, float] | None:
        """Place and cosine of the nearest identity that no negative takes back; NOBODY and -1 where all are.

        None where the list does not say: it ends too early, or what decides is closer than rounding.
        """
        taken_back: dict[int, float] = {}
        found: tuple[int, float] | None = None
        for group, score in zip(self.groups[probe].tolist(), self.scores[probe].tolist(), strict=True):
            if group < 0:
                # Everybody is on the list; a probe without any score, or without a direction, is no embedding.
                everybody = found or (NOBODY, -1.0)
                return everybody if self.groups[probe, 0] >= 0 and self.scores[probe, 0] != 0 else None
            if found is not None and found[1] - score > _APART:
                return found
            place, negative = divmod(group, 2)
            if negative:
                if found is not None and found[0] == place:
                    return None
                taken_back[place] = score
            elif place in taken_back:
                if taken_back[place] - score <= _APART:
                    return None
            elif found is not None:
                return None
            else:
                found = place, score
        return None

    def settled(self, threshold: float) -> tuple[npt.NDArray[np.intp], Floats] | None:
        """(F,) places and (F,) cosines of the nearest identities, clipped to [-1, 1].

        None where anybody's answer, its side of the threshold, or which of two faces is the more like one person,
        cannot be told from the lists alone.
        """
        found = [self.best(probe) for probe in range(len(self))]
        known = [each for each in found if each is not None]
        if len(known) < len(found) or any(abs(score - threshold) <= ROUNDING for _, score in known):
            return None
        held: dict[int, list[float]] = {}
        for place, score in known:
            held.setdefault(place, []).append(score)
        for place, scores in held.items():
            if place != NOBODY and len(scores) > 1 and np.diff(sorted(scores)).min() <= _APART:
                return None
        cosines = np.array([score for _, score in known], np.float32)
        return np.array([place for place, _ in known], np.intp), np.clip(cosines, -1.0, 1.0)


class Finder(Protocol):
    """Searches one snapshot elsewhere than in this process's memory."""

    def find(self, probes: Floats) -> Shortlist | None:
        """A list for each of (F, D) float32 probes; None where it cannot be had, and the CPU has to search."""
