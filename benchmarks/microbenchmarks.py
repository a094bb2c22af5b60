"""The results of `make bench` (pytest-benchmark's JSON), read into the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.errors import InputError

_MS = 1000.0


def read_microbenchmarks(path: Path) -> dict[str, Any]:
    """JSON-ready rows, slowest group first as in the file. Raises InputError where it is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            {
                "name": str(entry["name"]),
                "group": entry.get("group"),
                "rounds": int(entry["stats"]["rounds"]),
                "median_ms": entry["stats"]["median"] * _MS,
                "iqr_ms": entry["stats"]["iqr"] * _MS,
                "minimum_ms": entry["stats"]["min"] * _MS,
            }
            for entry in values["benchmarks"]
        ]
        cpu = values.get("machine_info", {}).get("cpu", {})
        return {"time": values.get("datetime"), "cpu": cpu.get("brand_raw"), "rows": rows}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the JSON of pytest-benchmark; make it with: make bench") from error
