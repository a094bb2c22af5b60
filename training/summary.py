"""A card in a few lines for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def summarise(card: dict[str, Any], out: Path) -> str:
    """What was learned, from what, and where it lies."""
    metrics = card["metrics"]
    seconds = card["training_seconds"]["wall"]
    lines = [
        f"best epoch {card['best_epoch']} of {card['epochs_run']}, {seconds:.0f} s of training",
        f"test photos named right, by the head       {_closed(metrics['closed_set_by_head'])}",
        f"test photos named right, by centroid       {_closed(metrics['tuned']['closed_set_by_centroid'])}",
        f"  the base, by centroid                    {_closed(metrics['base']['closed_set_by_centroid'])}",
    ]
    for title, network in (("after", metrics["tuned"]), ("base ", metrics["base"])):
        if isinstance(network["open_set"], dict):
            found = network["open_set"]
            lines.append(
                f"threshold {found['threshold']:.3f} ({title}): known named right {_rate(found['known_named_right'])}, "
                f"strangers named {_rate(found['strangers_named'])}"
            )
    if isinstance(metrics["pairs_points_lost"], float):
        before, after = metrics["base"]["pairs"], metrics["tuned"]["pairs"]
        lines.append(
            f"pairs: {_rate(before)} before, {_rate(after)} after: {metrics['pairs_points_lost']:+.2f} points lost"
        )
    lines.append(f"wrote {out / 'mobilefacenet.safetensors'} and {out / 'card.json'}")
    return "\n".join(lines)


def _closed(figures: dict[str, Any] | str) -> str:
    if isinstance(figures, str):
        return figures
    return f"{_rate(figures['photos'])}; of distinct photos {_rate(figures['distinct_photos'])}"


def _rate(rate: dict[str, Any] | str) -> str:
    if isinstance(rate, str):
        return rate
    low, high = 100 * rate["low"], 100 * rate["high"]
    return f"{100 * rate['value']:.2f} % [{low:.2f}, {high:.2f}] ({rate['hits']} of {rate['count']})"
