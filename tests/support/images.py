"""The container files, read as far as tests ask: their stages, and which packages an image gets."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGES = {
    "cpu": ("Dockerfile", ("cpu-build", "cpu")),
    "gpu": ("Dockerfile", ("gpu",)),
    "jetson": ("Dockerfile.jetson", ("build", "runtime")),
}
"""Each image, as it is spoken of: its file, and the stages that make it; the last is what runs."""


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, rest) in order, continued lines joined, comments left out."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return [(line.split()[0], " ".join(line.split()[1:])) for line in text.splitlines() if line.strip()]


def stage(repository: Path, image: str, number: int = -1) -> list[tuple[str, str]]:
    """The instructions of one of an image's stages, in the order of IMAGES."""
    file, stages = IMAGES[image]
    found, name = dict[str, list[tuple[str, str]]](), ""
    for step, rest in instructions(repository / file):
        if step == "FROM":
            name = rest.rpartition(" AS ")[2]
        found.setdefault(name, []).append((step, rest))
    return found[stages[number]]


def extras(repository: Path) -> dict[str, list[str]]:
    """The requirements of each extra, as pyproject.toml has them."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {str(name): list(wanted) for name, wanted in project["optional-dependencies"].items()}


def requirements(repository: Path, image: str) -> set[str]:
    """What pip is asked for by name or by an extra of arcedge, beyond arcedge's own requirements."""
    found = set[str]()
    for number in range(len(IMAGES[image][1])):
        for step, rest in stage(repository, image, number):
            for command in re.findall(r"pip install (.*?)(?:&&|$)", rest) if step == "RUN" else ():
                for word in shlex.split(command):
                    named = re.fullmatch(r"\.\[(.+)\]", word)
                    if named is not None:
                        found.update(what for extra in named[1].split(",") for what in extras(repository)[extra])
                    elif not word.startswith(("-", "$", ".")):
                        found.add(word)
    return found


def options(path: Path) -> set[str]:
    """The options of `edge` that a file of deploy/ gives or, in comments, proposes."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text(encoding="utf-8")))
