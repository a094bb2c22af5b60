"""Bulk embedding: millions of pictures into a gallery, resumable, on worker processes or a Ray cluster."""

from __future__ import annotations

from edge.indexing.indexing import Engine, Summary, index
from edge.indexing.jobs import Job, read_jobs
from edge.indexing.work import Result, WorkOptions

__all__ = ["Engine", "Job", "Result", "Summary", "WorkOptions", "index", "read_jobs"]
