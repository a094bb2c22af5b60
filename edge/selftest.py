"""Does this machine compute a model as its export did? Stored answers to made-up faces tell, in milliseconds.

The export stores what FP32 gives for the probes, and how far each variant may be from that: twice as far as exact
arithmetic brings it. An engine whose integer sums saturate, or whose kernels round more than they should, is further
off, and that is told before faces are compared by it. Not what the variant itself gives in exact arithmetic is
stored, for engines that round as finely at other places are as good, and as far from it as from FP32.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.contract import ModelContract
from edge.engines import Session
from edge.errors import BundleError, EngineError
from edge.manifest import Variant
from edge.types import Image

ENTRY = "self_test"
"""Where `Variant.measured` holds it."""

TOLERANCE = {"fp32": 1e-5, "fp16": 1e-3, "int8": 2e-3}
"""1 − cosine that is always allowed: float sums in another order, half rounding, INT8 steps rounded otherwise."""

TESTED = ("onnxruntime", "onnxruntime-cuda", "openvino")
"""Engines that compute a file as it is written and open it at once. Those that build one first prove it then;
`openvino-bf16` was asked to round more; a server's answers are its own business."""

_DETECTOR_SIDE = 64
_PROBES = 4
_FEATURES = ((38, 51, 7, 4, 90), (74, 51, 7, 4, 90), (56, 72, 6, 4, 35), (56, 92, 13, 4, 60))
"""Eyes, nose and mouth: centre, half width and half height in pixels of the template, how much darker."""


Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Mean cosine between a session's answers and those stored; least: what the export allows for."""

    variant: str
    cosine: float
    least: float

    @property
    def passed(self) -> bool:
        """Whether this machine computes the variant as it was exported."""
        return self.cosine >= self.least

    def __str__(self) -> str:
        said = "computes as exported" if self.passed else "DEVIATES from its export; use another precision or engine"
        return f"{said}: cosine {self.cosine:.5f} to what its export stored, least {self.least:.5f}"


def probes(contract: ModelContract) -> Image:
    """(N, H, W, 3) uint8 BGR: ovals with eyes and mouth on a pattern, by integer arithmetic, so the same everywhere."""
    height, width = contract.size or (_DETECTOR_SIDE, _DETECTOR_SIDE)
    y, x = np.mgrid[0:height, 0:width].astype(np.int32)  # halves the time of int64; what follows stays below 2**25
    # Coordinates of the 112×112 template, in sixteenths of a pixel.
    y, x = y * 112 * 16 // height, x * 112 * 16 // width
    return np.stack([_probe(y, x, number) for number in range(_PROBES if contract.size else 1)])


def answers(session: Session, pictures: Image) -> Rows:
    """(N, D): all outputs for each picture, flattened, in the order of the session's outputs' names."""
    rows = []
    for picture in pictures:
        outputs = session.run({session.inputs[0].name: picture[None]})
        rows.append(np.concatenate([outputs[name].reshape(-1).astype(np.float64) for name in sorted(outputs)]))
    return np.stack(rows)


def mean_cosine(a: Rows, b: Rows) -> float:
    """Over matching rows; what is no number counts as 0."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (a * b).sum(axis=1) / lengths
    return float(np.where(np.isfinite(cosine), cosine, 0.0).mean())


def to_entry(wanted: Rows, least: float) -> dict[str, Any]:
    """JSON-ready; answers as float16, which moves a cosine by less than 1e-6."""
    data = base64.b64encode(wanted.astype("<f2").tobytes()).decode()
    return {"answers": data, "count": len(wanted), "least_cosine": least}


def run_self_test(session: Session, variant: Variant) -> SelfTest | None:
    """What a session says to the probes against what the bundle stores; None for a bundle that stores nothing.

    Raises BundleError where the stored answers are damaged.
    """
    entry = variant.measured.get(ENTRY)
    if entry is None:
        return None
    expected, least = _stored(entry, variant.name)
    given = answers(session, probes(variant.contract))
    if given.shape != expected.shape:
        raise BundleError(f"bundle: the self-test of {variant.name} is of another model; export it again")
    return SelfTest(variant.name, mean_cosine(given, expected), least)


def require_faithful(session: Session, variant: Variant, engine: str) -> None:
    """Lets a session through that computes as the export did, an untested engine, and a bundle without stored answers.

    Costs five pictures of the two models, once. Raises EngineError where the session deviates.
    """
    result = run_self_test(session, variant) if engine in TESTED else None
    if result is not None and not result.passed:
        raise EngineError(
            f"{variant.name} on {engine}: this machine computes something else than the export (cosine "
            f"{result.cosine:.5f}, least {result.least:.5f}); take another --precision or --engine, and see "
            "edge doctor --bundle"
        )


def _stored(entry: Mapping[str, Any], name: str) -> tuple[Rows, float]:
    try:
        values = np.frombuffer(base64.b64decode(entry["answers"], validate=True), "<f2").astype(np.float64)
        return values.reshape(int(entry["count"]), -1), float(entry["least_cosine"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BundleError(f"bundle: the self-test of {name} is damaged ({error}); export it again") from error


def _probe(y: npt.NDArray[np.int32], x: npt.NDArray[np.int32], number: int) -> Image:
    """x, y: in sixteenths of a pixel of the template."""
    pattern = (x * (3 + number) + y * (5 - number)) // 64 % 61 + (x // 90 + y // 70) % 2 * 25
    picture: npt.NDArray[np.int32] = np.stack(
        [60 + pattern, 90 + pattern * (2 + number) // 3, 70 + pattern], axis=-1, dtype=np.int32
    )
    across, down = x - 56 * 16, y - 62 * 16
    away = across * across // 42**2 + down * down // 54**2  # 256 on the oval's rim
    skin = np.array([(120, 150, 200), (70, 95, 140), (150, 175, 220), (95, 120, 170)][number], np.int32)
    shaded = skin - away[..., None] // 5 + across[..., None] // 24 * (1 - number % 3)
    picture = np.where(away[..., None] < 256, shaded, picture)
    shadow = np.zeros_like(x)
    for left, top, wide, high, dark in _FEATURES:
        a, b = x - left * 16, y - (top + number % 2) * 16
        inside = a * a // wide**2 + b * b // high**2
        shadow += np.where(inside < 256, dark * (256 - inside) // 256, 0)
    clipped: Image = np.clip(picture - shadow[..., None], 0, 255).astype(np.uint8)
    return clipped
