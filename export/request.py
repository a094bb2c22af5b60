"""What a user asks of an export, with the budgets that hold where the user states none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.errors import GateError
from edge.manifest import PRECISIONS

MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.97}
"""Least mean cosine of an embedder variant to the reference."""

MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.98, "int8": 0.85}
"""Least agreement (export.agreement) of a detector variant with FP32."""

MAX_LANDMARK_SHIFT = {"fp32": 1e-3, "fp16": 5e-3}
"""Most that a landmarker variant may place landmarks from the reference's, on average: shares of the eye distance."""

MAX_DROP = 0.5
"""Points of accuracy, and of TAR at the FAR, a variant may lose where pairs are given."""


@dataclass(frozen=True, slots=True)
class Budget:
    """min_cosine: of the INT8 embedder, None for MIN_COSINE. max_drop: points, see MAX_DROP."""

    min_cosine: float | None = None
    max_drop: float = MAX_DROP

    def least_cosine(self, precision: str) -> float:
        """The least mean cosine an embedder variant may have."""
        if precision == "int8" and self.min_cosine is not None:
            return self.min_cosine
        return MIN_COSINE[precision]

    def least_figure(self, role: str) -> float:
        """The least mean cosine of an INT8 embedder, or the least agreement of an INT8 detector."""
        return self.least_cosine("int8") if role == "embedder" else MIN_AGREEMENT["int8"]

    def require_cosine(self, name: str, precision: str, mean: float, over: str) -> None:
        """Raises GateError where an embedder variant's mean cosine is below its budget."""
        least = self.least_cosine(precision)
        if not mean >= least:
            raise GateError(f"{name}: mean cosine {mean:.5f} over {over}, the budget is {least}; nothing was written")

    @staticmethod
    def require_agreement(name: str, precision: str, figure: float, faces: int) -> None:
        """Raises GateError where a detector variant finds other faces than FP32. Without a face there is no verdict."""
        least = MIN_AGREEMENT[precision]
        if faces and not figure >= least:
            raise GateError(
                f"{name}: agreement {figure:.4f} with FP32 over {faces} faces, the budget is {least}; "
                "nothing was written"
            )

    @staticmethod
    def require_shift(name: str, precision: str, shift: float, over: str) -> None:
        """Raises GateError where a landmarker variant's mean shift, shares of the eye distance, is above its budget."""
        most = MAX_LANDMARK_SHIFT[precision]
        if not shift <= most:
            raise GateError(
                f"{name}: landmarks {100 * shift:.2f} % of the eye distance from the reference's over {over}, "
                f"the budget is {100 * most:g} %; nothing was written"
            )


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """weights, or onnx with contract: the embedder. detector: file or name; None for the default.

    landmarker: file or name; None for the default, NO_LANDMARKER for a bundle without one.

    calibration: folder of photos or table; None for the table beside the weights. split: file that says which photos
    of that folder were learned from; the others are not calibrated on. pairs_from: identities to fit the
    thresholds on; None for the calibration photos, then what is stored beside the weights. far: None for what is
    stored, else DEFAULT_FAR. scenes: folder of whole photographs to fit the detector's scores on; None for what is
    stored beside the weights. evaluate, images: LFW-style pairs the gate compares on.
    repair: whether layers may stay in float to bring INT8 into its budget. save_calibration: file to write
    tables to. sign: private key file to sign the bundle with. keep: layers INT8 leaves in float, by output tensor.
    report: folder for what layers in float buy and cost; None where nobody asks.
    """

    out: Path
    weights: str | None = None
    onnx: Path | None = None
    contract: Path | None = None
    detector: str | None = None
    landmarker: str | None = None
    calibration: Path | None = None
    split: Path | None = None
    precisions: tuple[str, ...] = PRECISIONS
    targets: tuple[str, ...] = ("onnx",)
    far: float | None = None
    pairs_from: Path | None = None
    scenes: Path | None = None
    evaluate: Path | None = None
    images: Path | None = None
    budget: Budget = field(default_factory=Budget)
    repair: bool = True
    save_calibration: Path | None = None
    sign: Path | None = None
    keep: tuple[str, ...] = ()
    report: Path | None = None
    quiet: bool = False
