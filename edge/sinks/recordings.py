"""The recordings of a camera in a folder: the newest under its own name, older ones put aside under when they ended."""

from __future__ import annotations

import logging
import re
import time
from itertools import chain, count
from pathlib import Path

_LOG = logging.getLogger(__name__)


def put_aside(path: Path) -> Path | None:
    """Renames a file, where there is one, after when it was last written, in UTC: v.mp4 to v.20261129T021500Z.mp4.

    Gives its new path, None where there was none. Raises OSError where that cannot be done.
    """
    if not path.is_file():
        return None
    ended = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(path.stat().st_mtime))
    endings = chain([""], (f"-{number}" for number in count(2)))
    names = (path.with_name(f"{path.stem}.{ended}{ending}{path.suffix}") for ending in endings)
    return path.rename(next(name for name in names if not name.exists()))


def older(path: Path) -> list[Path]:
    """What `put_aside` has made of earlier files of this name, the oldest first."""
    pattern = re.compile(rf"{re.escape(path.stem)}\.(\d{{8}}T\d{{6}}Z)(?:-(\d+))?{re.escape(path.suffix)}")
    found = [(match, one) for one in path.parent.iterdir() if (match := pattern.fullmatch(one.name)) and one.is_file()]
    return [one for _, one in sorted(found, key=lambda entry: (entry[0][1], int(entry[0][2] or 1)))]


def delete_oldest(path: Path, most_bytes: float) -> None:
    """Deletes the oldest recordings until they and the newest take at most so many bytes; never the newest.

    One that cannot be deleted is left, with a line in the log: to record goes first.
    """
    try:
        files = older(path)
        sizes = {file: file.stat().st_size for file in (*files, path) if file.is_file()}
    except OSError as error:
        _LOG.warning("%s: older recordings cannot be looked for (%s)", path, error.strerror)
        return
    taken = sum(sizes.values())
    for file in files:
        if taken <= most_bytes:
            return
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("%s: cannot be deleted (%s)", file, error.strerror)
            continue
        taken -= sizes.get(file, 0)
