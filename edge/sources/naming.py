"""What a source is called, and the files that are called after it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import InputError
from edge.pictures import as_text
from edge.sources.base import without_password

_NAMED = re.compile(r"(?P<label>\w[\w.-]*)=(?P<address>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceName:
    """address: what is opened. label: what frames, logs, events and files call it."""

    label: str
    address: str

    @classmethod
    def parse(cls, text: str) -> SourceName:
        """From what follows --source: an address, or label=address. A path that exists is a path, whatever is in it."""
        found = _NAMED.fullmatch(text)
        if found is None or Path(text).exists():
            return cls(without_password(as_text(text)), text)
        return cls(found["label"], found["address"])


def parse_names(texts: Sequence[str]) -> list[SourceName]:
    """Raises InputError where two have one label: nobody could tell their events apart."""
    names = [SourceName.parse(text) for text in texts]
    labels = [name.label for name in names]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"--source {label} is there twice; give each a name: --source door={label}")
    return names


def file_of(path: Path, label: str) -> Path:
    """A file of one source beside others of its kind: camera.mp4 of rtsp://10.0.0.7/a is camera.rtsp-10.0.0.7-a.mp4."""
    slug = re.sub(r"[^\w.-]+", "-", label).strip("-.") or "source"
    return path.with_name(f"{path.stem}.{slug}{path.suffix}")
