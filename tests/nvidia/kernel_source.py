"""What `kernels/` says of its kernels: their arguments, and how many threads a block of each may have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

_LETTERS = {"int": "i", "float": "f"}
_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(([^)]*)\) )?(\w+)\(([^)]*)\)')


@dataclass(frozen=True, slots=True)
class KernelSource:
    """signature: a letter an argument, as `edge.cuda.kernels.SIGNATURES`. threads: of a block at most, 0 if unsaid."""

    signature: str
    threads: int


def constants(repository: Path) -> dict[str, int]:
    """Every constexpr int of the headers."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((repository / "kernels").glob("*.cuh")))
    return {name: int(value) for name, value in re.findall(r"constexpr int (\w+) = (\d+);", text)}


def kernels_of(repository: Path) -> dict[str, KernelSource]:
    """Every kernel by name."""
    source = (repository / "kernels" / "kernels.cu").read_text(encoding="utf-8")
    known = constants(repository)
    found = {}
    for bound, name, arguments in _KERNEL.findall(source):
        factors = [part.strip() for part in bound.split("*") if part.strip()]
        threads = math.prod(known[factor] if factor in known else int(factor) for factor in factors) if factors else 0
        signature = "".join("P" if "*" in each else _LETTERS[each.split()[-2]] for each in arguments.split(",") if each)
        found[name] = KernelSource(signature, threads)
    return found
