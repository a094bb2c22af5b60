"""The calibration doctor: whether a set of photos is fit to take ranges from, and what to do where it is not."""

from __future__ import annotations

from export.doctor.findings import Diagnosis, Finding, Severity

__all__ = ["Diagnosis", "Finding", "Severity"]
