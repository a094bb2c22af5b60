"""What the runtime's self-test compares with: FP32's answers to the probes, and how far a variant may be from them."""

from __future__ import annotations

from typing import Any

from edge.contract import ModelContract
from edge.engines import SessionOptions, open_session
from edge.selftest import TOLERANCE, Rows, answers, mean_cosine, probes, to_entry

OUTPUT_DIGITS = 6

ROUNDED_TWICE = 2.0
"""How many times what exact arithmetic loses to FP32 an engine may lose.

A sound engine rounds as finely as the file, though not at the same places: one leaves out the rounding before a
residual sum; in another a float32 sum in a different order moves a value across the edge of a step, and the layers
behind multiply that. It loses about as much as the file does: 0.9 to 1.2 times as much on the default embedder. If
every rounding were made twice, and those had nothing in common, squared distances, and so 1 − cosine, would add up to
twice as much. Sums that saturate lose more. `python -m benchmarks.int8.engines` has the figures.
"""


def self_test_entry(data: bytes, reference: bytes, contract: ModelContract, precision: str) -> dict[str, Any]:
    """The entry of a variant for its manifest.

    data, reference: the variant and the FP32 model, whose answers are stored. An engine may be from them by
    ROUNDED_TWICE what exact arithmetic of the variant loses on the probes, and by TOLERANCE where that is less.
    """
    wanted = exact_answers(reference, contract)
    lost = 1.0 - mean_cosine(exact_answers(data, contract), wanted)
    return to_entry(wanted, round(1.0 - max(ROUNDED_TWICE * lost, TOLERANCE[precision]), OUTPUT_DIGITS))


def exact_answers(data: bytes, contract: ModelContract) -> Rows:
    """(N, D) answers with nothing fused: integers are multiplied in float32, where no sum saturates."""
    with open_session(data, options=SessionOptions(as_written=True)) as session:
        return answers(session, probes(contract))
