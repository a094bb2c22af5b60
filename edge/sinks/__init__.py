"""Where results go: each sink takes every frame's result, in order, and is closed at the end."""

from __future__ import annotations

from edge.sinks.base import CountingSink, Sink, SinkCounts, counts_of, name_of
from edge.sinks.jsonl import JsonLines
from edge.sinks.progress import Progress
from edge.sinks.video import VideoFileSink
from edge.sinks.window import Window

__all__ = [
    "CountingSink",
    "JsonLines",
    "Progress",
    "Sink",
    "SinkCounts",
    "VideoFileSink",
    "Window",
    "counts_of",
    "name_of",
]
