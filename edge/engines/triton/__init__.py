"""Models that a Triton server runs: the bundle stays here and says what they must be, the server computes."""

from __future__ import annotations

from edge.engines.triton.address import Address
from edge.engines.triton.engine import TritonEngine

__all__ = ["Address", "TritonEngine"]
