"""Indexing: what was not seen yet goes through an engine into the gallery, in steps that are whole or not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge.gallery import Gallery, NewEntry
from edge.gallery.store import ANOTHERS_PICTURE, Outcome, Picture
from edge.indexing.jobs import Job
from edge.indexing.work import Result
from edge.pictures import as_text

CHUNK = 16
"""Pictures a worker gets at a time."""

STEP = 256
"""Pictures that go into the gallery at a time: what a kill costs is done again."""

_LOOKUP = 10_000


class Engine(Protocol):
    """Runs `Worker` over pictures, in whatever order. Gives every job's result at least once."""

    def run(self, chunks: Iterable[Sequence[Job]]) -> Iterator[list[Result]]:
        """Raises EngineError where it cannot work at all."""


@dataclass(slots=True)
class Summary:
    """Counts of pictures. seen: left alone, as they were indexed before. known: gave a vector that was there already.

    problems: path of each bad one, and what is wrong with it. problems_before: the same of those left alone.
    """

    pictures: int = 0
    seen: int = 0
    added: int = 0
    known: int = 0
    duplicates: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    problems_before: list[tuple[str, str]] = field(default_factory=list)


def index(
    gallery: Gallery,
    jobs: Sequence[Job],
    engine: Engine,
    progress: Callable[[int], object] = lambda pictures: None,
) -> Summary:
    """Adds the faces of the pictures to the gallery; those of an earlier run, finished or not, are left alone.

    progress gets the number of pictures done since it was called last.
    """
    summary = Summary(pictures=len(jobs))
    stamps: dict[Job, bytes] = {}
    for job, stamp, seen, problem in _look_up(gallery, jobs):
        if seen or job in stamps:
            summary.seen += 1
            if problem is not None:
                summary.problems_before.append((as_text(job.path), problem))
        else:
            stamps[job] = stamp
    progress(summary.seen)
    todo = list(stamps)
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    waiting: list[Result] = []
    for results in engine.run(chunks):
        # An engine that lost a machine may give a result again.
        waiting += [result for result in results if result.job in stamps]
        if len(waiting) >= STEP:
            _store(gallery, waiting, stamps, summary, progress)
            waiting = []
    _store(gallery, waiting, stamps, summary, progress)
    return summary


def _look_up(gallery: Gallery, jobs: Sequence[Job]) -> Iterator[tuple[Job, bytes, bool, str | None]]:
    """With each job's stamp, whether it was seen before, and what was wrong with it then."""
    for start in range(0, len(jobs), _LOOKUP):
        part = jobs[start : start + _LOOKUP]
        stamps = [job.stamp() for job in part]
        seen = gallery.seen(stamps)
        problems = gallery.problems([stamp for stamp, there in zip(stamps, seen, strict=True) if there])
        for job, stamp, there in zip(part, stamps, seen, strict=True):
            yield job, stamp, there, problems.get(stamp)


def _store(
    gallery: Gallery,
    results: Sequence[Result],
    stamps: dict[Job, bytes],
    summary: Summary,
    progress: Callable[[int], object],
) -> None:
    fresh = {result.job: result for result in results if result.job in stamps}
    pictures = [_picture(result, stamps.pop(job)) for job, result in fresh.items()]
    outcomes = gallery.add_pictures(pictures)
    for result, outcome in zip(fresh.values(), outcomes, strict=True):
        summary.added += outcome is Outcome.ADDED
        summary.known += outcome is Outcome.KNOWN
        summary.duplicates += outcome is Outcome.DUPLICATE
        if outcome is Outcome.ANOTHERS:
            summary.problems.append((as_text(result.job.path), ANOTHERS_PICTURE))
        elif result.problem is not None:
            summary.problems.append((as_text(result.job.path), result.problem))
    progress(len(fresh))


def _picture(result: Result, stamp: bytes) -> Picture:
    if result.vector is None:
        return Picture(stamp, result.digest, None, result.problem)
    entry = NewEntry(result.job.name, result.vector, as_text(result.job.path), result.crop)
    return Picture(stamp, result.digest, entry)
