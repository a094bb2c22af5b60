"""What ONNX Runtime's TensorRT provider builds, kept between starts with a passport, and given to it only when checked.

The provider deserialises what it finds under a name in its cache folder, whoever put it there and whenever. So it gets
a folder of its own each time a model is opened: empty, or with the files that were kept for exactly this identity, from
the very bytes whose digest was compared. What it leaves there once the session is proved is kept, as one file.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from edge.engine_cache import EngineCache, EngineIdentity, load_plan, unusable
from edge.errors import EngineError

_log = logging.getLogger(__name__)


@contextmanager
def kept_plans(cache: EngineCache, identity: EngineIdentity) -> Iterator[Path]:
    """A folder to open one model with: it holds the plans kept for `identity`, or nothing where there are none.

    What is in it when the block ends is kept; nothing is where the block raises. Plans that are not what their passport
    says are thrown away, which is logged. Who opens the same model meanwhile waits, so that it is built once. Raises
    EngineError where the cache cannot be used.
    """
    plan = cache.paths(identity)[0]
    with cache.alone(identity):
        before = _kept(cache, identity)
        work = plan.with_suffix(".work")
        folder = _laid_out(work, before)
        started = perf_counter()
        try:
            yield folder
            after = _files(folder)
        except EngineError as error:
            if not before:
                raise
            raise EngineError(f"{error}; it was opened with {plan}: delete that if this goes on") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not after:
            _log.warning("ONNX Runtime wrote no engine to keep: each start builds it again")
        elif after != before:
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in after.items()}
            cache.store(identity, _packed(after), {"seconds": round(perf_counter() - started, 1), "files": digests})


def _kept(cache: EngineCache, identity: EngineIdentity) -> dict[str, bytes]:
    """Files by name; empty where none were kept, or must not be used."""
    plan, paper = cache.paths(identity)
    if not plan.exists():
        return {}
    try:
        return _unpacked(load_plan(plan, paper, identity)[0])
    except (EngineError, zipfile.BadZipFile) as error:
        _log.warning("%s; it is thrown away and built again", error)
        cache.remove(identity)
        return {}


def _laid_out(work: Path, files: Mapping[str, bytes]) -> Path:
    """A new folder in `work` with these files. What one that was killed left in `work` goes.

    Its name is never used again: a provider keeps the path it was given for as long as its session is open.
    """
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=work))
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise unusable(work, error) from error
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def _unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {Path(name).name: archive.read(name) for name in archive.namelist()}
