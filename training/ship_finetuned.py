"""`python -m training.ship_finetuned RUN`: a fine-tuned network goes into `model_weights/` with the card of its run."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.weights.cards import Figure
from training.shipping import write_shipped_card

NAMED, STRANGERS, LOST = 97.0, 1.0, 0.1
"""What shipped weights are held to: per cent of test photos named right, and of strangers named, at the threshold;
points of verification accuracy lost to fine-tuning."""

KEPT = (
    "base", "activation", "embedding_size", "detector", "rehearsal", "split", "split_leaks", "hyper_parameters",
    "epochs_run", "best_epoch", "metrics", "training_seconds", "total_wall_seconds", "machine", "versions", "command",
)  # fmt: skip
"""Entries of a run's card that go into the shipped one as they are; its data set does as `dataset`."""


def ship(run: Path, name: str, folder: Path, *, terms: str, published: Path | None) -> Path:
    """Copies a run's weights to `folder/name.safetensors` and writes the card beside; its path.

    terms: of the photos, in words. published: another run of the same photos under the split published with them.
    Raises InputError where the run is not finished, or lacks a figure that shipped weights are held to.
    """
    card = _read(run)
    target = folder / f"{name}.safetensors"
    shutil.copyfile(run / "mobilefacenet.safetensors", target)
    figures = [*_closed_set(card), *_open_set(card), *_pairs(card)]
    if published is not None:
        figures.append(_published(_read(published)))
    data, split = card["data"], card["split"]
    return write_shipped_card(
        target,
        role="embedder",
        licence="Apache-2.0",
        data=f"{Path(card['base']['file']).stem}, fine-tuned on {len(split['train'])} of {data['photos']} photos "
        f"({data['distinct_photos']} distinct) of {len(data['identities'])} people. {terms}",
        figures=figures,
        limits=_limits(card),
        more={
            **{key: card[key] for key in KEPT},
            "dataset": data,
            "threshold": _threshold(card),
        },
    )


def _read(run: Path) -> dict[str, Any]:
    path = run / "card.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); `edge train` writes it when it is done") from error
    return card


def _of(metrics: dict[str, Any], *path: str) -> dict[str, Any]:
    found: Any = metrics
    for key in path:
        found = found[key]
        if not isinstance(found, dict):
            raise InputError(f"the run's card says {found!r} of {' '.join(path)}: train with --strangers and --pairs")
    return found  # type: ignore[no-any-return]


def _figure(what: str, rate: dict[str, Any], on: str, target: str = "", met: bool | None = None) -> Figure:
    value, low, high = (round(100 * rate[key], 3) for key in ("value", "low", "high"))
    return Figure(what, value, low, high, rate["count"], on, "%", target, met)


def _test(card: dict[str, Any]) -> str:
    return f"test part of the split by {card['split']['method']}"


def _closed_set(card: dict[str, Any]) -> Iterable[Figure]:
    metrics, on = card["metrics"], _test(card)
    head = _of(metrics, "closed_set_by_head")
    for key, what, how in (
        ("photos", "test photos", "near-duplicates counted each"),
        ("distinct_photos", "distinct test photos", "near-duplicates counted once, all of them right"),
    ):
        met = head[key]["hits"] == head[key]["count"]
        yield _figure(f"{what} named right, by the head", head[key], f"{on}; {how}", "100 %", met)
    for whose, what in (("tuned", "distinct test photos named right, by centroid"), ("base", "the same of the base")):
        yield _figure(what, _of(metrics, whose, "closed_set_by_centroid", "distinct_photos"), on)


def _open_set(card: dict[str, Any]) -> Iterable[Figure]:
    for whose, what in (("tuned", ""), ("base", "the base at its own threshold: ")):
        found = _of(card["metrics"], whose, "open_set")
        at = f"cosine {found['threshold']:.4f}, searched among the training photos"
        held = whose == "tuned"
        known, strangers = found["known_named_right"], found["strangers_named"]
        yield _figure(
            f"{what}test photos named right at the threshold",
            known,
            f"{_test(card)}; {at}",
            f">= {NAMED:g} %" if held else "",
            100 * known["value"] >= NAMED if held else None,
        )
        yield _figure(
            f"{what}strangers named at the threshold",
            strangers,
            f"LFW pictures without the known; {at}",
            f"<= {STRANGERS:g} %" if held else "",
            100 * strangers["value"] <= STRANGERS if held else None,
        )


def _pairs(card: dict[str, Any]) -> Iterable[Figure]:
    metrics, on = card["metrics"], "LFW folds 1-5, k-fold thresholds"
    yield _figure("verification accuracy", _of(metrics, "tuned", "pairs"), on)
    yield _figure("verification accuracy of the base", base := _of(metrics, "base", "pairs"), on)
    lost = round(metrics["pairs_points_lost"], 3)
    yield Figure(
        "verification accuracy lost to fine-tuning",
        lost,
        count=base["count"],
        on="LFW folds 1-5, the same pairs and detector",
        unit="points",
        target=f"<= {LOST:g} points",
        met=lost <= LOST,
    )


def _published(card: dict[str, Any]) -> Figure:
    leaks = card["split_leaks"]["groups_in_two_parts"]
    return _figure(
        "test photos named right under the published split, by the head",
        _of(card["metrics"], "closed_set_by_head", "photos"),
        f"the published split, which leaks: {leaks} groups of near-duplicates lie in two parts",
    )


def _threshold(card: dict[str, Any]) -> dict[str, Any]:
    return {
        "similarity": round(_of(card["metrics"], "tuned", "open_set")["threshold"], 6),
        "source": next((note for note in card["metrics"]["notes"] if note.startswith("open-set threshold")), ""),
    }


def _limits(card: dict[str, Any]) -> list[str]:
    data, distinct = card["data"], _of(card["metrics"], "closed_set_by_head", "distinct_photos")
    people = len(data["identities"])
    return [
        f"Rests on {people} people and {data['distinct_photos']} distinct photos, {distinct['count']} of them in the "
        f"test: {100 * distinct['value']:g} % of so few may be {100 * distinct['low']:.1f} %.",
        "The photos are of actors, well lit and mostly frontal; other cameras, disguise and attempts to deceive were "
        "not tried.",
        f"Faces were found by {card['detector']}, in training and in every figure.",
        "The strangers the threshold was fitted on were among the crops the base learned from, though not among those "
        "rehearsed.",
        f"The threshold counts strangers searched among the training photos of these {people} people; another gallery "
        "needs another threshold.",
    ]


def main() -> int:
    """`python -m training.ship_finetuned`."""
    parser = argparse.ArgumentParser(prog="python -m training.ship_finetuned", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder that `edge train --out` wrote, with --strangers and --pairs")
    add("--published", type=Path, metavar="RUN", help="the same under the published split")
    add("--name", default="mobilefacenet-avengers", help="of the weights (default: %(default)s)")
    add("--folder", type=Path, default=Path("model_weights"), metavar="DIR", help="default: %(default)s")
    add("--terms", default="Terms of the photos: not stated.", metavar="TEXT", help="of the photos, for the card")
    args = parser.parse_args()
    try:
        print(
            "wrote",
            ship(args.run, args.name, args.folder, terms=args.terms, published=args.published),
        )
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
