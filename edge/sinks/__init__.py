"""Where results go: each sink takes every frame's result, in order, and is closed at the end."""

from __future__ import annotations

from edge.sinks.base import Sink
from edge.sinks.jsonl import JsonLines
from edge.sinks.progress import Progress
from edge.sinks.video import VideoFileSink
from edge.sinks.window import Window

__all__ = ["JsonLines", "Progress", "Sink", "VideoFileSink", "Window"]
