"""What the comparison with a peer comes to, in sentences: where the peer is better is said first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Better = tuple[list[str], list[str], list[str]]
"""Where the peer is certainly better, where the baseline is, and what the intervals leave open."""


def sentences(
    name: str,
    baseline: str,
    latency: Mapping[str, Any],
    pairs: Mapping[str, Any] | None,
    detection: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """`better`, `worse` and `open`: lists of sentences about peer `name` against the bundle's `baseline`."""
    found: Better = ([], [], [])
    for stage, what in (("detect", "detection"), ("embed", "alignment and embedding"), ("frame", "a whole frame")):
        if stage in latency["lines"][name]:
            _time(found, what, baseline, latency["lines"][name][stage])
    if detection and name in detection["lines"]:
        row = detection["lines"][name]
        said = (
            f"finds {_percent(row['recall'])} of {detection['faces']} faces at its threshold, with "
            f"{row['false_alarms']} false alarms; {baseline} {_percent(detection['lines'][baseline]['recall'])}, "
            f"with {detection['lines'][baseline]['false_alarms']}"
        )
        _loss(found, said, row["against_baseline"]["recall_loss"])
    if pairs and name in pairs["lines"]:
        row = pairs["lines"][name]
        said = (
            f"is right on {_percent(row['accuracy'])} of {pairs['pairs']:,} pairs, {baseline} on "
            f"{_percent(pairs['lines'][baseline]['accuracy'])}"
        )
        _loss(found, said, row["against_baseline"]["loss"])
    return {"peer": name, "better": found[0], "worse": found[1], "open": found[2]}


def _time(found: Better, what: str, baseline: str, figures: Mapping[str, Any]) -> None:
    times = figures["times_cpu"]
    if times["high"] < 1.0:
        said = f"{1 / times['value']:.2f} times less processor time [{1 / times['high']:.2f}, {1 / times['low']:.2f}]"
        found[0].append(f"{what} takes {said} than {baseline}")
    elif times["low"] > 1.0:
        said = f"{times['value']:.2f} times the processor time [{times['low']:.2f}, {times['high']:.2f}]"
        found[1].append(f"{what} takes {said} of {baseline}")
    else:
        found[2].append(
            f"{what} takes as much processor time, {times['value']:.2f} times [{times['low']:.2f}, {times['high']:.2f}]"
        )


def _loss(found: Better, said: str, loss: Mapping[str, float]) -> None:
    """loss: of the peer against the baseline; negative where the peer is better."""
    found[0 if loss["high"] < 0 else 1 if loss["low"] > 0 else 2].append(said)


def _percent(figure: Mapping[str, float]) -> str:
    return f"{100 * figure['value']:.2f} % [{100 * figure['low']:.2f}, {100 * figure['high']:.2f}]"
