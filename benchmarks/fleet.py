"""The paper plan of docs/scale.md: what a fleet needs, from figures that were measured and assumptions that are yours.

python -m benchmarks.fleet                                # the table of docs/scale.md
python -m benchmarks.fleet --cameras 500 --visits 200 --price-device 400
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.command import command
from edge.errors import InputError

RESULTS = Path(__file__).with_name("results")
COST = "camera/2026-11-24-amd-epyc-cost.json"
MESSAGES = "fleet/2026-11-24-amd-epyc-messages.json"

CROP_BYTES = 112 * 112 * 3
FRAME_BYTES = 640 * 384 * 3
"""What an embedder and a detector of 640 pixels are sent."""

GPU_GOAL = 100_000
"""Faces a second of one GPU that the project aims at. Not measured."""

HOURS_A_YEAR = 8760


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of kept results: AMD EPYC, 2 virtual cores, AVX2 only, busy with other work."""

    frame_ms: float
    """CPU of a frame of 1280×720 with five faces, tracked, every third searched, INT8; decoding is not in it."""
    face_ms: float
    """CPU of a face embedded in fours, INT8."""
    event_bytes: float
    line_bytes: float
    looks_a_visit: float
    metrics_bytes: float
    metrics_samples: float
    bundle_bytes: float
    gallery_bytes: float

    @classmethod
    def read(cls, results: Path = RESULTS) -> Measured:
        """From the result files. Raises InputError where one is missing or another than expected."""
        cost, messages = (_read(results / name) for name in (COST, MESSAGES))
        try:
            return cls(
                frame_ms=cost["int8"]["cpu_ms_a_frame"]["5 faces"]["tracked"]["median"],
                face_ms=cost["int8"]["embedding_cpu_ms_a_face_by_batch"]["4"]["median"],
                event_bytes=messages["visit_event_bytes"]["with_envelope_mean"],
                line_bytes=messages["decision_line_bytes"]["median"],
                looks_a_visit=messages["looks"] / messages["visits"],
                metrics_bytes=messages["metrics_page"]["bytes"],
                metrics_samples=messages["metrics_page"]["samples"],
                bundle_bytes=messages["rollout"]["bundle_bytes"],
                gallery_bytes=messages["gallery"]["database_bytes"] / messages["gallery"]["faces"],
            )
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"{results}: the kept results lack {error}; measure again") from error


@dataclass(frozen=True, slots=True)
class Assumed:
    """What nobody measured: how the fleet is, and what things cost. Money is in any one currency."""

    cameras: float = 10_000
    cameras_a_device: float = 4
    fps: float = 25
    visits: float = 60
    """Of a camera, in a busy hour."""
    visit_seconds: float = 10
    busy_hours: float = 12
    """A day."""
    scrape_seconds: float = 15
    changes: float = 1000
    """Faces of the central gallery that change in a day; every device holds the whole gallery."""
    price_device: float = 250
    watts: float = 10
    """Of a device."""
    price_kwh: float = 0.25
    price_gb: float = 0.05
    price_core_hour: float = 0.04
    years: float = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < float("inf"):
                raise InputError(f"--{field.name.replace('_', '-')} is above 0")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the plan. how: the arithmetic, in words; rests_on: measured, by definition, assumed, or a goal."""

    part: str
    what: str
    value: float
    unit: str
    how: str
    rests_on: str


def plan(measured: Measured, assumed: Assumed) -> list[Row]:
    """The whole plan, part by part."""
    return [
        *_devices(measured, assumed),
        *_messages(measured, assumed),
        *_central(measured, assumed),
        *_money(measured, assumed),
    ]


def _devices(m: Measured, a: Assumed) -> list[Row]:
    cores = a.fps * m.frame_ms / 1000
    return [
        Row("devices", "devices", a.cameras / a.cameras_a_device, "", "cameras ÷ cameras a device", "assumed"),
        Row(
            "devices",
            "cores a camera, five faces always in view",
            cores,
            "cores",
            f"fps × {m.frame_ms:g} ms",
            "measured, without decoding",
        ),
        Row(
            "devices",
            "cores a device",
            cores * a.cameras_a_device,
            "cores",
            "cores a camera × cameras",
            "measured, without decoding",
        ),
    ]


def _messages(m: Measured, a: Assumed) -> list[Row]:
    devices, visits = a.cameras / a.cameras_a_device, a.cameras * a.visits / 3600
    lines = visits * a.visit_seconds * a.fps
    return [
        Row("messages", "visit events, busy hour", 2 * visits, "/s", "visits × 2: appeared, left", "assumed visits"),
        Row(
            "messages",
            "visit events, busy hour",
            2 * visits * m.event_bytes * 8 / 1e6,
            "Mbit/s",
            f"events × {m.event_bytes:g} B",
            "measured bytes",
        ),
        Row(
            "messages",
            "visit events, a day",
            2 * visits * 3600 * a.busy_hours / 1e6,
            "million",
            "events × busy hours",
            "assumed",
        ),
        Row("messages", "if every face of every frame were sent", lines, "/s", "visits × seconds × fps", "assumed"),
        Row(
            "messages",
            "if every face of every frame were sent",
            lines * m.line_bytes * 8 / 1e6,
            "Mbit/s",
            f"lines × {m.line_bytes:g} B",
            "measured bytes",
        ),
        Row(
            "messages",
            "Prometheus samples",
            devices * m.metrics_samples / a.scrape_seconds,
            "/s",
            f"devices × {m.metrics_samples:g} ÷ scrape interval",
            "measured samples, one camera a page",
        ),
        Row(
            "messages",
            "Prometheus pages",
            devices * m.metrics_bytes * 8 / a.scrape_seconds / 1e6,
            "Mbit/s",
            f"devices × {m.metrics_bytes:g} B ÷ scrape interval",
            "measured bytes",
        ),
        Row(
            "messages",
            "gallery changes, a day",
            a.changes * m.gallery_bytes * devices / 1e9,
            "GB",
            f"changes × {m.gallery_bytes:.0f} B × devices",
            "measured bytes on disk",
        ),
        Row(
            "messages",
            "a bundle to all",
            m.bundle_bytes * devices / 1e9,
            "GB",
            f"{m.bundle_bytes / 1e6:.1f} MB × devices",
            "measured bytes",
        ),
        Row(
            "messages",
            "a bundle to all, within an hour",
            m.bundle_bytes * devices * 8 / 3600 / 1e6,
            "Mbit/s",
            "the timer's random hour",
            "by definition",
        ),
        Row(
            "messages", "index requests, one a device and hour", devices / 3600, "/s", "devices ÷ 3600", "by definition"
        ),
    ]


def _central(m: Measured, a: Assumed) -> list[Row]:
    faces = a.cameras * a.visits / 3600 * m.looks_a_visit
    return [
        Row(
            "central",
            "frames to a central detector",
            a.cameras * a.fps * FRAME_BYTES * 8 / 1e9,
            "Gbit/s",
            "cameras × fps × 640×384×3 B",
            "by definition",
        ),
        Row(
            "central",
            "faces to a central embedder, busy hour",
            faces,
            "/s",
            f"visits × {m.looks_a_visit:.1f} looks",
            "measured looks, two videos",
        ),
        Row(
            "central",
            "crops to a central embedder",
            faces * CROP_BYTES * 8 / 1e9,
            "Gbit/s",
            "faces × 112×112×3 B",
            "by definition",
        ),
        Row(
            "central",
            "cores that embed them, INT8",
            faces * m.face_ms / 1000,
            "cores",
            f"faces × {m.face_ms:g} ms",
            "measured",
        ),
        Row(
            "central",
            "GPUs that embed them",
            faces / GPU_GOAL,
            "",
            f"faces ÷ {GPU_GOAL:,} a second",
            "a goal: not measured",
        ),
    ]


def _money(m: Measured, a: Assumed) -> list[Row]:
    devices, visits = a.cameras / a.cameras_a_device, a.cameras * a.visits / 3600
    once = devices * a.price_device
    power = devices * a.watts / 1000 * HOURS_A_YEAR * a.price_kwh
    seconds = a.busy_hours * 3600 * 365
    bytes_a_year = (
        2 * visits * m.event_bytes * seconds
        + devices * m.metrics_bytes / a.scrape_seconds * HOURS_A_YEAR * 3600
        + a.changes * m.gallery_bytes * devices * 365
    )
    traffic = bytes_a_year / 1e9 * a.price_gb
    cores = visits * m.looks_a_visit * m.face_ms / 1000 * HOURS_A_YEAR * a.price_core_hour
    crops = visits * m.looks_a_visit * CROP_BYTES * seconds / 1e9 * a.price_gb
    yearly = power + traffic
    return [
        Row("money", "devices, once", once, "", "devices × price", "assumed price"),
        Row("money", "power, a year", power, "", "devices × watts × hours × price", "assumed; watts not measured"),
        Row(
            "money",
            "events, metrics, gallery, a year",
            traffic,
            "",
            f"{bytes_a_year / 1e12:.1f} TB × price",
            "measured bytes, assumed price",
        ),
        Row(
            "money",
            "a camera and year, all on devices",
            (once / a.years + yearly) / a.cameras,
            "",
            "(devices ÷ years + yearly) ÷ cameras",
            "as above",
        ),
        Row(
            "money",
            "embedding in the centre instead: crops, a year",
            crops,
            "",
            "crops × busy hours × price",
            "as above",
        ),
        Row(
            "money",
            "embedding in the centre instead: cores, a year",
            cores,
            "",
            "cores of the busy hour, always on",
            "as above",
        ),
    ]


def as_markdown(rows: Sequence[Row]) -> str:
    """The table of docs/scale.md."""
    lines = ["| | | value | how | rests on |", "|---|---|---|---|---|"]
    part = ""
    for row in rows:
        value = f"{_number(row.value)} {row.unit}".strip()
        lines.append(f"| {row.part if row.part != part else ''} | {row.what} | {value} | {row.how} | {row.rests_on} |")
        part = row.part
    return "\n".join(lines)


@command("fleet")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the plan; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.splitlines()[0])
    for field in fields(Assumed):
        assert field.default is not MISSING
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=float, default=field.default, help="default: %(default)g"
        )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="kept results")
    values = vars(parser.parse_args(arguments))
    measured = Measured.read(values.pop("results"))
    print(as_markdown(plan(measured, Assumed(**values))))
    return 0


def _number(value: float) -> str:
    """Three digits that count."""
    if value == 0 or value >= 100:
        digits = max(len(str(int(value))) - 3, 0)
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as a result ({error})") from error


if __name__ == "__main__":
    sys.exit(main())
