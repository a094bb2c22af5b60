"""Whether faces are stored with red and blue exchanged. Skin of every tone is redder than blue in ordinary light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.types import Image
from export.doctor.survey import CHEEKS

GREY = 8.0
"""Difference of the means of red and blue (0-255) below which a face says nothing: black-and-white, or nearly."""


@dataclass(frozen=True, slots=True)
class ColourOrder:
    """redness: (N,) mean red minus mean blue of each face's skin, 0-255. coloured: faces that say something."""

    redness: tuple[float, ...]

    @property
    def coloured(self) -> int:
        """Faces that are not grey."""
        return sum(abs(value) >= GREY for value in self.redness)

    @property
    def bluish(self) -> tuple[int, ...]:
        """Faces whose skin is bluer than red: stored in the wrong order, or under coloured light."""
        return tuple(i for i, value in enumerate(self.redness) if value <= -GREY)

    @property
    def exchanged(self) -> bool:
        """Whether most faces that say something say that red and blue are exchanged."""
        return self.coloured > 0 and 2 * len(self.bluish) > self.coloured


def colour_order(crops: Sequence[Image]) -> ColourOrder:
    """Looks at aligned crops (112, 112, 3) uint8 in the order they were read in, BGR where all is well."""
    values = []
    for crop in crops:
        blue, _, red = crop[CHEEKS].reshape(-1, 3).astype(np.float64).mean(axis=0)
        values.append(float(red - blue))
    return ColourOrder(tuple(values))
