"""`edge train`: fine-tuning on a folder of identities; below it, training the weights that come with arcedge."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from edge.cli.options import positive, positive_float
from edge.cli.verb import Parser, Verb
from edge.errors import InputError
from training.recipe import TRAIN_FROM, FinetuneOptions

TASKS = {
    "distill": ("train an embedder from random weights, taught by another", "training.distill.cli", "distill"),
    "detector": ("train the face detector", "training.detector.cli", "detector"),
    "landmarker": ("train what places landmarks", "training.landmarker.run", "landmarker"),
}
"""Name: summary, module, and what its `configure_…` and `run_…` are called."""


def configure(parser: argparse.ArgumentParser) -> None:
    _add_inputs(parser)
    _add_recipe(parser)
    _add_measures(parser)
    parser.add_argument("--json", action="store_true", help="print the card as JSON")
    tasks = parser.add_subparsers(dest="task", metavar="TASK", title="other training", parser_class=_LazyParser)
    for name, (summary, _, _) in TASKS.items():
        task = tasks.add_parser(name, help=summary, description=summary)
        task.set_defaults(task=name)
        task.configure = _configure_task(name)


def run(args: argparse.Namespace) -> int:
    if args.task is not None:
        _, module, stem = TASKS[args.task]
        status: int = getattr(import_module(module), f"run_{stem}")(args)
        return status
    return _finetune(args)


def _finetune(args: argparse.Namespace) -> int:
    if args.dataset is None or args.out is None:
        raise InputError("name the photos with --dataset and the folder to write with --out; see edge train --help")
    if (args.pairs is None) != (args.images is None):
        raise InputError("--pairs is a list of pictures, --images the folder that holds them: they go together")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out}: is a file; --out names a folder")
    # Looked for before anything learns: what is measured comes last.
    for option, path in (("--strangers", args.strangers), ("--pairs", args.pairs), ("--images", args.images)):
        if path is not None and not path.exists():
            raise InputError(f"{option} {path}: no such file or folder")
    from training.job import run_job
    from training.summary import summarise

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    card = run_job(_job(args), say)
    print(json.dumps(card) if args.json else summarise(card, args.out))
    return 0


def _job(args: argparse.Namespace) -> Any:
    from edge.weights import find_weights
    from training.faces import Finder
    from training.prepare import TrainingJob

    return TrainingJob(
        dataset=args.dataset,
        out=args.out,
        weights=find_weights(args.weights, "embedder"),
        finder=None if args.aligned else Finder.of(args.detector, args.landmarker),
        split=args.split,
        groups=args.groups,
        activation=args.activation,
        rehearsal=tuple(args.rehearsal),
        strangers=args.strangers,
        pairs=args.pairs,
        images=args.images,
        options=FinetuneOptions(**{field.name: getattr(args, field.name) for field in fields(FinetuneOptions)}),
        device=args.device,
        resume=args.resume,
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("photos and weights")
    group.add_argument("--dataset", type=Path, metavar="DIR", help="one folder a person, photos inside")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for the weights, the card and the curves")
    group.add_argument(
        "--weights", metavar="FILE_OR_NAME", help="embedder to start from (default: the one in model_weights)"
    )
    group.add_argument("--detector", metavar="FILE_OR_NAME", help="finds the faces (default: the one in model_weights)")
    group.add_argument(
        "--landmarker",
        metavar="FILE_OR_NAME",
        help="places their landmarks, or none (default: the one in model_weights)",
    )
    group.add_argument("--aligned", action="store_true", help="the photos are aligned 112x112 crops: no detector")
    group.add_argument(
        "--split",
        default="group",
        metavar="HOW",
        help="group: no near-duplicate in two parts; published: the tables in or beside DIR; or a file (JSON, card) or "
        "folder of tables (default: %(default)s)",
    )
    group.add_argument(
        "--groups", type=Path, metavar="FILE", help="JSON of near-duplicates (default: the one by DIR, else searched)"
    )
    group.add_argument(
        "--rehearsal",
        type=Path,
        action="append",
        default=[],
        metavar="ZIP_OR_DIR",
        help="aligned crops of other people, <person>/<name>, kept recognised while training; repeatable",
    )
    group.add_argument("--resume", action="store_true", help="go on with the run in --out, if one was cut off")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    recipe = FinetuneOptions()
    group = parser.add_argument_group("recipe")

    def add(flag: str, name: str, kind: Callable[[str], Any], text: str, **more: Any) -> None:
        default = getattr(recipe, name)
        group.add_argument(flag, dest=name, type=kind, default=default, help=f"{text} (default: {default})", **more)

    add("--epochs", "epochs", positive, "at most so many", metavar="N")
    add("--lr", "learning_rate", positive_float, "learning rate of the head", metavar="F")
    add("--body-rate", "body_rate", float, "the network's learning rate, as a share of --lr", metavar="F")
    add("--batch", "batch", positive, "photos an update", metavar="N")
    add("--seed", "seed", int, "of the split, the order and the augmentation", metavar="N")
    add("--head", "head", str, "margin of the loss", choices=("arcface", "cosface"))
    add("--margin", "margin", float, "radians for arcface, cosine for cosface", metavar="F")
    add("--scale", "scale", positive_float, "of the cosines in the loss", metavar="F")
    layers = ", ".join(TRAIN_FROM)
    add("--train-from", "train_from", str, f"first layer that learns: {layers}", choices=TRAIN_FROM, metavar="LAYER")
    add("--batchnorm", "batchnorm", str, "statistics: the base's, or the photos'", choices=("frozen", "running"))
    add("--distill", "distill", float, "weight that holds to the base's answers on the photos", metavar="F")
    add("--rehearse", "rehearse", float, "weight that holds to them on rehearsal crops", metavar="F")
    add("--weight-decay", "weight_decay", float, "of convolutions and the linear layer", metavar="F")
    add("--patience", "patience", positive, "epochs without a better validation to stop after", metavar="N")
    group.add_argument("--activation", choices=("relu", "prelu"), help="of the network (default: the base's)")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: %(default)s)")


def _add_measures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("measured after training, never learned from")
    group.add_argument("--strangers", type=Path, metavar="DIR", help="photos of people not in DIR: how many get a name")
    group.add_argument("--pairs", type=Path, metavar="FILE", help="LFW-style pairs: what was forgotten")
    group.add_argument("--images", type=Path, metavar="DIR", help="the pictures of --pairs")


class _LazyParser(Parser):
    """Gets its arguments when it is used: `edge --help` must not wait for torch."""

    configure: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.configure is not None:
            configure, self.configure = self.configure, None
            try:
                configure(self)
            except ModuleNotFoundError as error:
                self.error(f"{error.name} is not installed; install it with: pip install 'arcedge[train]'")
        return super().parse_known_args(args, namespace)


def _configure_task(name: str) -> Callable[[argparse.ArgumentParser], None]:
    _, module, stem = TASKS[name]

    def configure_task(parser: argparse.ArgumentParser) -> None:
        getattr(import_module(module), f"configure_{stem}")(parser)

    return configure_task


VERB = Verb(
    name="train",
    summary="fine-tune the embedder on your people",
    configure=configure,
    run=run,
    description=(
        "Fine-tunes MobileFaceNet with a margin head on a folder of identities, without forgetting everybody else.\n"
        "Writes mobilefacenet.safetensors, head.safetensors, card.json, history.csv, curves.png and predictions.csv."
    ),
    example=(
        "edge train --dataset photos/ --out runs/mine --rehearsal faces112.zip\n"
        "edge export --weights runs/mine/mobilefacenet.safetensors --calibration photos/ --out mine.bundle"
    ),
    requires=("torch", "safetensors", "matplotlib"),
    extra="train",
)
