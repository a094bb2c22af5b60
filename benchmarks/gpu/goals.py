"""What a GPU is asked to reach, and whether the figures say that it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.provenance import NOT_MEASURED

ONE_FACE_MS = 0.3
FRAME_MS = 1.5
FRAME_SPREAD = 1.5
OVER_ENQUEUE = 1.10
FACES_PER_SECOND = 100_000
FACES = 5
"""In each frame of the goals: fewer are done sooner."""
NOBODY = {"least": 0, "most": 0}
NOT_SHOWN = "not shown"


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a goal and engine: what it is, the bound, the figure, whether it was met; None where none was taken,
    and why, where that is known.
    """
    return [*_of_engines(result), *_of_frames(result), *_of_int8(result)]


def as_text(entries: list[dict[str, Any]]) -> str:
    """A line an entry. What was measured of something else than the goal speaks of is not shown by it."""
    words = {True: "met", False: "MISSED"}
    lines = []
    for entry in entries:
        word = words.get(entry["met"], NOT_SHOWN if _number(entry["figure"]) else NOT_MEASURED)
        lines.append(f"{word:12} {entry['goal']}: {entry.get('why') or _shown(entry['figure'])} ({entry['of']})")
    return "\n".join(lines)


def _of_engines(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, engine in _named(result, "engines"):
        one = engine.get("batches", {}).get("1", {})
        why = engine.get("not_measured") or one.get("not_measured")
        yield _most("runtime over pure enqueue, batch 1", name, one.get("runtime_over_enqueue"), OVER_ENQUEUE, why)
        if engine.get("role") != "embedder" or "best" not in engine:
            continue  # the goals of faces are those of embedders
        median = (one["runtime"]["p50"] or {}).get("value") if one.get("cuda_graph") else None
        yield _most("ms of one face, CUDA graph", name, median, ONE_FACE_MS, one.get("not_measured"))
        best = engine["best"]
        rate = best.get("faces_per_second_device")
        yield _entry(
            "faces a second, best batch",
            name,
            rate,
            f">= {FACES_PER_SECOND}",
            _number(rate) and rate >= FACES_PER_SECOND,
            best.get("not_measured"),
        )


def _of_frames(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, frame in _named(result, "frames"):
        way = frame.get("preprocess_gpu_ms", {})
        why = frame.get("not_measured") or _other_faces(frame.get("faces", NOBODY))
        yield _most("ms of a frame with five faces, p50", name, (way.get("p50") or {}).get("value"), FRAME_MS, why)
        yield _most("p99 over p50 of such a frame", name, way.get("p99_over_p50"), FRAME_SPREAD, why)


def _other_faces(found: dict[str, int]) -> str | None:
    """What else than the goal's faces the frames showed; None where it was just these."""
    if found["least"] == found["most"] == FACES:
        return None
    return f"frames had {found['least']} to {found['most']} faces, not {FACES}"


def _of_int8(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, engine in _named(result, "engines"):
        proof = engine.get("int8")
        if isinstance(proof, dict):
            share = proof["in_int8"] / proof["quantised"]
            untold = proof["untold"]
            why = (
                f"the inspector does not tell what {len(untold)} of {proof['quantised']} layers take"
                if untold
                else None
            )
            yield _entry("share of quantised layers in INT8", name, share, "1", share == 1.0, why)


def _named(result: dict[str, Any], part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for bundle, entries in result["bundles"].items():
        for name, entry in entries.get(part, {}).items():
            yield f"{bundle} {name}", entry


def _most(goal: str, of: str, figure: Any, bound: float, why: str | None = None) -> dict[str, Any]:
    return _entry(goal, of, figure, f"<= {bound:g}", _number(figure) and figure <= bound, why)


def _entry(goal: str, of: str, figure: Any, bound: str, met: bool, why: str | None = None) -> dict[str, Any]:
    known = _number(figure)
    return {
        "goal": f"{goal} {bound}",
        "of": of,
        "figure": figure if known else NOT_MEASURED,
        "met": bool(met) if known and not why else None,
        **({"why": why} if why else {}),
    }


def _number(figure: Any) -> bool:
    return isinstance(figure, float | int)


def _shown(figure: Any) -> str:
    return f"{figure:.4g}" if _number(figure) else str(figure)
