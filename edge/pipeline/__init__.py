"""The main job: frames of one source or several in, decisions out, in order."""

from __future__ import annotations

from edge.pipeline.pipeline import Pipeline, PipelineOptions
from edge.pipeline.stream import Stream

__all__ = ["Pipeline", "PipelineOptions", "Stream"]
