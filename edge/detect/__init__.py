"""Face detection: YuNet-family models, decoded and pruned here."""

from __future__ import annotations

from edge.detect.crops import find_main_face, same_face
from edge.detect.detector import WORKING_SCORE, Detector, DetectorOptions
from edge.detect.landmarker import Landmarker

__all__ = ["WORKING_SCORE", "Detector", "DetectorOptions", "Landmarker", "find_main_face", "same_face"]
