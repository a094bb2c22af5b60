"""`edge train qat`: its arguments, and the run from them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli.options import positive, positive_float
from edge.errors import InputError

if TYPE_CHECKING:
    from training.qat.run import Run


def configure_qat(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `edge train qat`."""
    from training.qat.run import Recipe

    recipe = Recipe()
    add = parser.add_argument
    add("--weights", metavar="FILE_OR_NAME", help="detector to fine-tune (default: the one in model_weights)")
    add(
        "--pictures",
        type=Path,
        action="append",
        required=True,
        metavar="DIR_OR_ZIP",
        help="photos with faces, without labels; repeatable",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="weights to write (.safetensors)")
    add("--state", type=Path, metavar="FILE", help="to stop and resume with (default: beside --out, .state)")
    add("--hold-out", type=positive, default=8, metavar="N", help="one photo in N only judges (default: %(default)s)")
    add("--steps", type=positive, default=recipe.steps, metavar="N", help="updates (default: %(default)s)")
    add("--batch", type=positive, default=recipe.batch, metavar="N", help="windows an update (default: %(default)s)")
    add("--rate", type=positive_float, default=recipe.rate, metavar="F", help="learning rate (default: %(default)s)")
    add("--size", type=positive, default=recipe.size, metavar="PX", help="of a window's side (default: %(default)s)")
    add("--seed", type=int, default=recipe.seed, metavar="N", help="of the windows (default: %(default)s)")
    add("--threads", type=positive, default=1, metavar="N", help="CPU threads (default: %(default)s)")


def run_qat(args: argparse.Namespace) -> int:
    """Fine-tunes, says what rounding costs before and after, and writes the weights."""
    if args.size < 64 or args.size % 32:
        raise InputError(f"--size {args.size}: a multiple of 32 from 64 up is needed")
    if args.hold_out < 2:
        raise InputError("--hold-out 1 leaves nothing to learn from; give 2 or more")
    import cv2
    import torch

    from edge.weights import find_weights
    from edge.weights.digests import digest_of
    from training.card import write_card
    from training.qat.detector import DetectorTask, read_photos
    from training.qat.run import Recipe, Run

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    weights = find_weights(args.weights, "detector")
    recipe = Recipe(steps=args.steps, batch=args.batch, rate=args.rate, size=args.size, seed=args.seed)
    learn, judge = read_photos(args.pictures, args.hold_out)
    print(f"{len(learn)} photos to learn from, {len(judge)} that only judge; {recipe.steps} updates", flush=True)
    task = DetectorTask(weights, learn, judge, recipe.size, recipe.seed)
    run = Run(task, recipe, args.state or args.out.with_suffix(".state"), digest_of(weights))
    run.train()
    task.save(args.out, recipe.steps)
    write_card(args.out.with_suffix(".training.json"), describe(run, weights, len(learn), len(judge)))
    course = run.course
    print(
        f"rounding errs by {course.error_before:.4f} of the float answers before and {course.error_after:.4f} after, "
        f"on photos held out\n{args.out}: {course.wall:.0f} s wall, {course.cpu:.0f} s CPU",
        flush=True,
    )
    return 0


def describe(run: Run, weights: Path, learned_from: int, judged_on: int) -> dict[str, Any]:
    """What the card says of the training: what it began with, data, recipe, how it went.

    What is known of the base is taken from the card beside it: its figures are its own, and are not.
    """
    import torch

    from edge.weights.cards import CARD_SUFFIX, read_card
    from edge.weights.digests import digest_of
    from training.card import command, machine, versions
    from training.detector.network import ARCH

    card = weights.with_name(weights.stem + CARD_SUFFIX)
    base = read_card(card) if card.is_file() else None
    course = run.course
    came = f"{base.data.rstrip('.')}. Then" if base is not None else "What the base learned from is not known. Then"
    return {
        "architecture": ARCH,
        "data": f"{came} fine-tuned for INT8 on its own answers in float to {learned_from:,} photos, without labels.",
        "limits": list(base.limits) if base is not None else [],
        "base": {"file": weights.name, "sha256": digest_of(weights)},
        "recipe": asdict(run.recipe),
        "rounding_error": {
            "before": round(course.error_before, 6),
            "after": round(course.error_after, 6),
            "photos": judged_on,
        },
        "history": course.losses,
        "took": {"wall_seconds": round(course.wall, 1), "cpu_seconds": round(course.cpu, 1)},
        "machine": machine(torch.device("cpu")),
        "versions": versions(),
        "command": command(),
    }
