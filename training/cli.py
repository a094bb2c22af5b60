"""`edge train`: fine-tuning on a folder of identities; below it, training the weights that come with arcedge."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from edge.cli.options import positive, positive_float
from edge.cli.verb import Verb
from edge.errors import InputError

TASKS = {
    "distill": ("train an embedder from random weights, taught by another", "training.distill.cli", "distill"),
    "detector": ("train the face detector", "training.detector.run", "detector"),
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
    from training.job import run_job
    from training.summary import summarise

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    card = run_job(_job(args), say)
    print(json.dumps(card) if args.json else summarise(card, args.out))
    return 0


def _job(args: argparse.Namespace) -> Any:
    from edge.weights import find_weights
    from training.finetune import FinetuneOptions
    from training.prepare import TrainingJob

    given = {
        "epochs": args.epochs, "learning_rate": args.lr, "batch": args.batch, "seed": args.seed, "head": args.head,
        "train_from": args.train_from, "batchnorm": args.batchnorm, "distill": args.distill, "rehearse": args.rehearse,
        "body_rate": args.body_rate, "margin": args.margin, "patience": args.patience,
    }  # fmt: skip
    return TrainingJob(
        dataset=args.dataset,
        out=args.out,
        weights=find_weights(args.weights, "embedder"),
        detector=None if args.aligned else find_weights(args.detector, "detector"),
        split=args.split,
        groups=args.groups,
        activation=args.activation,
        rehearsal=tuple(args.rehearsal),
        strangers=args.strangers,
        pairs=args.pairs,
        images=args.images,
        options=FinetuneOptions(**{name: value for name, value in given.items() if value is not None}),
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
    group = parser.add_argument_group("recipe (defaults: see the card that is written)")
    group.add_argument("--epochs", type=positive, metavar="N", help="at most so many")
    group.add_argument("--lr", type=positive_float, metavar="F", help="learning rate of the head")
    group.add_argument("--body-rate", type=float, metavar="F", help="the network's learning rate, as a share of --lr")
    group.add_argument("--batch", type=positive, metavar="N", help="photos an update")
    group.add_argument("--seed", type=int, metavar="N", help="of the split, the order and the augmentation")
    group.add_argument("--head", choices=("arcface", "cosface"), help="margin of the loss")
    group.add_argument("--margin", type=float, metavar="F", help="radians for arcface, cosine for cosface")
    group.add_argument("--activation", choices=("relu", "prelu"), help="of the network (default: the base's)")
    group.add_argument("--train-from", metavar="LAYER", help="first layer that learns: conv1 … linear, or head")
    group.add_argument("--batchnorm", choices=("frozen", "running"), help="statistics: the base's, or the photos'")
    group.add_argument("--distill", type=float, metavar="F", help="hold to the base's answers on the photos")
    group.add_argument("--rehearse", type=float, metavar="F", help="hold to the base's answers on rehearsal crops")
    group.add_argument(
        "--patience", type=positive, metavar="N", help="epochs without a better validation to stop after"
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: %(default)s)")


def _add_measures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("measured after training, never learned from")
    group.add_argument("--strangers", type=Path, metavar="DIR", help="photos of people not in DIR: how many get a name")
    group.add_argument("--pairs", type=Path, metavar="FILE", help="LFW-style pairs: what was forgotten")
    group.add_argument("--images", type=Path, metavar="DIR", help="the pictures of --pairs")


class _LazyParser(argparse.ArgumentParser):
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
