"""What the runtime's self-test compares with: each variant's answers to the probes, in exact arithmetic."""

from __future__ import annotations

from typing import Any

from edge.contract import ModelContract
from edge.engines import SessionOptions, open_session
from edge.selftest import TOLERANCE, Rows, answers, mean_cosine, probes, to_entry

OUTPUT_DIGITS = 6


def self_test_entry(data: bytes, reference: bytes, contract: ModelContract, precision: str) -> dict[str, Any]:
    """The entry of a variant for its manifest.

    data, reference: the variant and the FP32 model. An engine may deviate from exact arithmetic by what the precision
    itself costs on the probes, and by TOLERANCE where that is less.
    """
    exact = exact_answers(data, contract)
    lost = 1.0 - mean_cosine(exact, exact_answers(reference, contract))
    return to_entry(exact, round(1.0 - max(lost, TOLERANCE[precision]), OUTPUT_DIGITS))


def exact_answers(data: bytes, contract: ModelContract) -> Rows:
    """(N, D) answers with nothing fused: integers are multiplied in float32, where no sum saturates."""
    with open_session(data, options=SessionOptions(as_written=True)) as session:
        return answers(session, probes(contract))
