"""Does a contract say how its model is really fed? The calibration photos know: fed rightly, people separate best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge.contract import Color, ModelContract
from edge.errors import GateError
from edge.types import Floats, Image

NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "mean 127.5, std 127.5": ((127.5,) * 3, (127.5,) * 3),
    "mean 0, std 255": ((0.0,) * 3, (255.0,) * 3),
    "mean 0, std 1": ((0.0,) * 3, (1.0,) * 3),
    "ImageNet's mean and std": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
"""What models of this field are fed with, on the 0-255 scale, in RGB order."""

MARGIN = 0.01
"""Share of d' an alternative must win, with its whole 95 % interval, before a contract is called wrong."""

RESAMPLES = 300
MAX_CROPS = 120
MIN_CROPS = 20

EmbedAs = Callable[[ModelContract, Image], Floats]
"""Embeddings of crops by the bare model, fed as a contract says."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to feed the model. gain: share of d' it wins over the contract; low: lower end of its interval."""

    words: str
    gain: float
    low: float


def require_plausible(
    contract: ModelContract, embed: EmbedAs, crops: Image, labels: npt.NDArray[np.int64]
) -> tuple[Alternative, ...]:
    """Compares the contract with the other colour order and with the common normalisations, on faces of several people.

    crops: (N, H, W, 3) uint8 BGR; labels: (N,), whom each shows. Gives the alternatives, best first; none where the
    crops are too few to tell. Raises GateError where one separates the people better beyond doubt: then color, mean or
    std of the contract is wrong.
    """
    chosen = np.linspace(0, len(crops) - 1, min(len(crops), MAX_CROPS)).astype(np.int64)
    crops, labels = crops[chosen], labels[chosen]
    same = labels[:, None] == labels[None]
    if len(crops) < MIN_CROPS or same.all() or same.sum() <= len(labels):
        return ()
    random = np.random.default_rng(0)
    draws = [np.unique(random.integers(0, len(crops), len(crops))) for _ in range(RESAMPLES)]

    def separations(candidate: ModelContract) -> npt.NDArray[np.float64]:
        rows = embed(candidate, crops)
        scores = rows @ rows.T
        return np.array([separation(scores[np.ix_(d, d)], same[np.ix_(d, d)]) for d in (np.arange(len(crops)), *draws)])

    stated = separations(contract)
    found = []
    for words, candidate in alternatives(contract).items():
        ratio = separations(candidate) / np.maximum(stated, 1e-9) - 1.0
        found.append(Alternative(words, float(ratio[0]), float(np.quantile(ratio[1:], 0.025))))
    found.sort(key=lambda entry: -entry.gain)
    if found and found[0].low > MARGIN:
        best = found[0]
        raise GateError(
            f"the contract feeds this model wrongly: with {best.words} it separates the calibration photos' people "
            f"{100 * best.gain:.0f} % better (d', {len(crops)} faces); correct the contract; nothing was written"
        )
    return tuple(found)


def alternatives(contract: ModelContract) -> dict[str, ModelContract]:
    """The other colour order, and the common normalisations that the contract does not state, in its own order."""
    other: Color = "bgr" if contract.color == "rgb" else "rgb"
    found = {f"color {other}": replace(contract, color=other, mean=contract.mean[::-1], std=contract.std[::-1])}
    for words, (mean, std) in NORMALISATIONS.items():
        if contract.color == "bgr":
            mean, std = mean[::-1], std[::-1]
        candidate = replace(contract, mean=mean, std=std)
        if not np.allclose([contract.mean, contract.std], [mean, std], rtol=0.02, atol=1.0):
            found[words] = candidate
    return found


def separation(scores: npt.NDArray[np.floating], same: npt.NDArray[np.bool_]) -> float:
    """d': the distance of genuine from impostor scores in units of their spread (Green and Swets, 1966).

    scores, same: (N, N), symmetric; the diagonal does not count.
    """
    i, j = np.triu_indices(len(scores), 1)
    genuine, impostor = scores[i, j][same[i, j]], scores[i, j][~same[i, j]]
    if not len(genuine) or not len(impostor):
        return 0.0
    spread = np.sqrt((genuine.var() + impostor.var()) / 2)
    return float((genuine.mean() - impostor.mean()) / max(float(spread), 1e-9))
