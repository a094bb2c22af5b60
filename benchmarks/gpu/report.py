"""The file of GPU figures: what it is of, its parts or why they are missing, and how a run that was cut off goes on."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import digest_of_files, machine, now, versions
from edge.device_engines import photos_of
from edge.errors import EdgeError, InputError
from edge.metrics.pairs import images_of, read_pairs
from edge.weights.digests import digest_of

MOST_BEGINNINGS = 2
"""Of a part that ended the command: a run may be cut off at any, but a library that crashes does so at the same."""
ENDED = "the command ended twice while it was measured; it is passed over, take it out of `unfinished` to try it again"


class Report:
    """The file of results: written after each part, and what is in it already of the same subject is kept."""

    def __init__(self, file: Path, subject: dict[str, Any]) -> None:
        """Raises InputError where the file is of something else, or cannot be written."""
        self._file = file
        self.failed: list[str] = []
        self.values: dict[str, Any] = {
            "time": now(),
            "machine": machine(),
            "versions": versions(),
            **subject,
            "bundles": {},
        }
        if not file.exists():
            self.write()
            return
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            same = all(before[name] == json.loads(json.dumps(value)) for name, value in subject.items())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: holds no results of this command; name another file with --out") from error
        if not same:
            raise InputError(
                f"{file}: holds results of another GPU, TensorRT, bundle or options, or of other pictures; "
                "name another file with --out"
            )
        self.values = before

    def part(
        self,
        name: str,
        work: Callable[[], Any],
        within: dict[str, Any] | None = None,
        of: str = "",
        settled: Callable[[Any], bool] = lambda kept: True,
    ) -> None:
        """Measures a part that is not there yet; one that cannot be says why, and costs the others nothing.

        settled: whether what is there from before stays; else it is measured again, as after a fault was mended.
        """
        values = self.values if within is None else within
        kept = values.get(name)
        if kept is not None and not (isinstance(kept, dict) and "not_measured" in kept) and settled(kept):
            return
        part = f"{of or 'device'}: {name}"
        began: dict[str, int] = self.values.setdefault("unfinished", {})
        if began.get(part, 0) >= MOST_BEGINNINGS:
            values[name] = {"not_measured": self.fails(part, ENDED)}
            return
        print(f"{now()} {part}", file=sys.stderr)
        began[part] = began.get(part, 0) + 1
        self.write()
        try:
            values[name] = found = work()
            if isinstance(found, dict) and (why := found.get("not_measured") or _not_metered(found)):
                print(f"edge: {part}: {why}", file=sys.stderr)
        except EdgeError as error:
            values[name] = {"not_measured": self.fails(part, str(error))}
        except ImportError as error:  # images for devices hold no more than a camera needs
            missing = f"{error.name} is not installed; install it with: pip install arcedge[dev]"
            values[name] = {"not_measured": self.fails(part, missing)}
        except Exception as error:  # a bug, or a package's own kind of fault: the other figures are worth having
            traceback.print_exc()
            values[name] = {"not_measured": self.fails(part, f"{type(error).__name__}: {error}")}
        finally:  # whatever Python lives through, and an interruption is no crash
            del began[part]
            self.write()

    def of_kernels(self, digest: str | None) -> None:
        """Drops the figures of other kernels, as of those before a fault was mended. digest: None: none are here."""
        if digest is None or self.values.get("kernels_digest") == digest:
            return
        if self.values.get("kernels_digest") is not None:
            for name in ("kernels", "search", "sanitizer"):
                self.values.pop(name, None)
            for entries in self.values["bundles"].values():
                entries.get("frames", {}).clear()
        self.values["kernels_digest"] = digest

    def fails(self, part: str, why: str) -> str:
        """Says of a part why it could not be measured, and gives it back."""
        print(f"edge: {part}: {why}", file=sys.stderr)
        self.failed.append(part)
        return why

    def write(self) -> None:
        """In one step, so that a run cut off leaves a whole file. Raises InputError."""
        temporary = self._file.with_name(f"{self._file.name}.new")
        try:
            temporary.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self._file)
        except OSError as error:
            raise InputError(
                f"{self._file}: cannot be written ({error.strerror}); name another file with --out"
            ) from error


def _not_metered(found: dict[str, Any]) -> Any:
    """Why joules were not measured."""
    return found.get("reason") if found.get("measured") is False else None


def picture_digests(pairs: Path | None, images: Path | None, photos: Path | None) -> dict[str, str | None]:
    """SHA-256 of the list, of its pictures, and of the photos that engines are proved on. Raises InputError."""
    found: dict[str, str | None] = dict.fromkeys(("pairs", "images", "photos"))
    if pairs is not None and images is not None:
        named = images_of(read_pairs(pairs), images)
        found["pairs"] = digest_of(pairs)
        found["images"], _ = digest_of_files((str(name), path) for name, path in named.items())
    if photos is not None:
        found["photos"], _ = digest_of_files((f"{place:03}", path) for place, path in enumerate(photos_of(photos)))
    return found
