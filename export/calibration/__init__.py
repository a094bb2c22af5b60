"""Static calibration: which range each tensor of a graph takes over real faces."""

from __future__ import annotations

from export.calibration.methods import METHODS, Histogram
from export.calibration.observer import observe
from export.calibration.table import CalibrationTable, read_tables, write_tables

__all__ = ["METHODS", "CalibrationTable", "Histogram", "observe", "read_tables", "write_tables"]
