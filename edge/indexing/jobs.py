"""What is to be indexed: whose picture, and where it lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge.enrolment import find_people
from edge.errors import GalleryError, InputError
from edge.gallery.gallery import checked_name


@dataclass(frozen=True, slots=True)
class Job:
    """A picture of a person."""

    name: str
    path: Path

    def stamp(self) -> bytes:
        """Changes when another file comes to stand here, or this one is changed."""
        try:
            found = self.path.stat()
            facts = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            facts = "missing"
        return f"{self.name}\0{self.path.absolute()}\0{facts}".encode(errors="surrogateescape")


def read_jobs(source: Path) -> list[Job]:
    """Of a folder with a folder for each person, or of a list: a line a picture, its path, or name, tab and path.

    Without a name the picture is of the person whose name its folder has. Relative paths begin where the list lies.
    Raises InputError where there is nothing to index or a line makes no sense.
    """
    if source.is_dir():
        return [Job(person.name, path) for person in find_people(source) for path in person.pictures]
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); give a folder or a list of pictures") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not a list of pictures in UTF-8; give a folder or such a list") from error
    jobs = [_job(source, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not jobs:
        raise InputError(f"{source}: an empty list; a line a picture is expected")
    if not any(os.path.exists(job.path) for job in jobs):  # noqa: PTH110 – takes names of any length
        # Another kind of file, or a disk that is not mounted: nothing of it belongs into a gallery.
        raise InputError(f"{source}: no line of it names a file that is there; the first would be {jobs[0].path}")
    return jobs


def _job(source: Path, number: int, line: str) -> Job:
    name, tab, text = line.rpartition("\t")
    path = source.parent / text.strip()
    try:
        return Job(checked_name(name if tab else path.absolute().parent.name), path)
    except GalleryError as error:
        raise InputError(f"{source}: line {number}: {error}") from error
