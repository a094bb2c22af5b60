"""Face detection: YuNet-family models, decoded and pruned here."""

from __future__ import annotations

from edge.detect.crops import find_main_face, same_face
from edge.detect.detector import Detector, DetectorOptions

__all__ = ["Detector", "DetectorOptions", "find_main_face", "same_face"]
