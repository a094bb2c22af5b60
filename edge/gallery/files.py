"""Files that hold biometric data: written in one step, and zeroed before they are removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge.locked_files import new_file, remove_if_left


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once the block has ended and its bytes are on disk.

    What a writer left behind that was killed is removed first. Raises OSError.
    """
    remove_leftovers(path)
    file, temporary = new_file(path)
    with file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_leftovers(path: Path) -> None:
    """Zeroes and removes the temporary files of `path` whose writers are gone. Raises OSError."""
    pattern = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{8}")
    for other in path.parent.iterdir():
        if pattern.fullmatch(other.name):
            remove_if_left(other, _zero)


@dataclass(frozen=True, slots=True)
class Held:
    """A file that is there, open: the very one, whatever takes its place at `path`."""

    path: Path
    file: BinaryIO

    def overwrite(self) -> None:
        """Zeroes its bytes and removes it, so that nothing of a forgotten person stays in a freed block.

        A process that still maps it then sees zeros, which match nobody. Raises OSError.
        """
        self.file.seek(0)
        _zero(self.file)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self.file.fileno()), self.path.stat()):
                self.path.unlink()


@contextmanager
def holding(paths: Iterable[Path]) -> Iterator[list[Held]]:
    """Those of the files that are there, until the block ends. Raises OSError."""
    with ExitStack() as opened:
        held = []
        for path in paths:
            with suppress(FileNotFoundError):
                held.append(Held(path, opened.enter_context(path.open("r+b"))))
        yield held


def _zero(file: BinaryIO) -> None:
    left = os.fstat(file.fileno()).st_size
    while left > 0:
        left -= file.write(bytes(min(left, 1 << 20)))
    file.flush()
    os.fsync(file.fileno())
