"""A Triton model repository from a bundle, for those who outgrow one machine."""

from __future__ import annotations

from export.triton.options import TritonOptions
from export.triton.repository import require_repository, write_repository

__all__ = ["TritonOptions", "require_repository", "write_repository"]
