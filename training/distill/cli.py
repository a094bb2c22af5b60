"""`edge train distill`: its arguments, and the run from them."""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import InputError

if TYPE_CHECKING:
    from training.distill.run import Distiller
    from training.faces import Finder
    from training.mobilefacenet import MobileFaceNet

HARVESTED = "faces112-scenes.zip"
REALIGNED = "faces112-realigned-{}.zip"


def configure_distill(parser: argparse.ArgumentParser) -> None:
    """The arguments of `edge train distill`. Light: nothing heavy is imported."""
    add = parser.add_argument
    add("--teacher", type=Path, required=True, metavar="FILE", help="weights of foamliu's MobileFaceNet (.pt)")
    add("--crops", type=Path, required=True, action="append", metavar="ZIP_OR_DIR", help="aligned faces; repeatable")
    add("--photos", type=Path, action="append", default=[], metavar="ZIP_OR_DIR", help="photos to cut more faces from")
    add(
        "--photos-detector",
        metavar="FINDER",
        help="finds the faces of --photos, as --detector (default: the first --detector, else those in model_weights)",
    )
    add(
        "--realign",
        action="store_true",
        help="cut --crops anew by what finds the faces of --photos",
    )
    add("--terms", default="Terms of the crops: not stated.", metavar="TEXT", help="of the crops, for the card")
    add("--pairs", type=Path, metavar="FILE", help="LFW-style pairs file the finished weights are measured on")
    add("--images", type=Path, metavar="DIR", help="folder of the photos that --pairs names")
    add(
        "--detector",
        action="append",
        default=[],
        metavar="FINDER",
        help="finds the faces of --pairs: DETECTOR, or DETECTOR+LANDMARKER, by files or names; repeatable, the targets "
        "are of the first (default: those in model_weights)",
    )
    add("--work", type=Path, required=True, metavar="DIR", help="state and log; a run that was stopped goes on from it")
    add("--output", type=Path, metavar="FILE", help="where the finished weights go (.safetensors)")
    add(
        "--from",
        dest="start",
        metavar="FILE_OR_NAME",
        help="finished weights of the same teacher and --seed; the second phase begins from them, without a first",
    )
    add("--bf16", action="store_true", help="second phase in bfloat16: a third quicker where the CPU has it")
    add("--embedding-size", type=int, default=512, metavar="N", help="of the student (default %(default)s)")
    add("--bank", type=int, default=4096, metavar="N", help="crops of the first phase, 1 MB each (default %(default)s)")
    add("--block-steps", type=int, default=2500, metavar="N", help="first phase: steps a block (default %(default)s)")
    add("--steps", type=int, default=10_000, metavar="N", help="steps of the second phase (default %(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="crops a step (default %(default)s)")
    add("--workers", type=int, default=2, metavar="N", help="threads that share a batch (default %(default)s)")
    add(
        "--hold-out",
        type=int,
        default=64,
        metavar="N",
        help="one identity in N is not trained on (default %(default)s)",
    )
    add("--lr", type=float, default=1.2e-3, help="highest learning rate of the second phase (default %(default)s)")
    add(
        "--stages",
        type=float,
        default=1.0,
        metavar="W",
        help="second phase: weight of the stages' errors beside the embedding's (default %(default)s)",
    )
    add(
        "--gentle",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="the last share of the second phase in which fewer crops are blurred, covered, grey, small or compressed "
        "(default %(default)s)",
    )
    add("--seed", type=int, default=0, help="of weights, order and augmentation (default %(default)s)")
    add("--save-every", type=float, default=120.0, metavar="S", help="between checkpoints (default %(default)s)")
    add(
        "--evaluate-every",
        type=float,
        default=1200.0,
        metavar="S",
        help="between snapshots (default %(default)s)",
    )


def run_distill(args: argparse.Namespace) -> int:
    """Trains from where the work folder stands to the end, and writes the weights."""
    _check(args)
    import torch

    from edge.weights import find_weights
    from edge.weights.digests import digest_of
    from training.checkpoint import load_embedder, save_embedder
    from training.distill.crops import CropStore
    from training.distill.journal import CHECKPOINT, Journal
    from training.distill.losses import LossWeights
    from training.distill.recipe import Recipe
    from training.distill.run import DONE, Distiller
    from training.distill.teacher import EMBEDDING_SIZE, BothWays, load_teacher
    from training.mobilefacenet import MobileFaceNet

    torch.set_num_threads(1)  # each worker has one core
    torch.manual_seed(args.seed)
    teacher = BothWays(load_teacher(args.teacher))
    start = find_weights(args.start, "embedder") if args.start is not None else None
    recipe = Recipe(
        seed=args.seed,
        batch=args.batch,
        workers=args.workers,
        bank=args.bank,
        block_steps=args.block_steps,
        steps=args.steps,
        lr=args.lr,
        gentle=args.gentle,
        weights=LossWeights(stages=args.stages),
        hold_out=args.hold_out,
        bf16=args.bf16,
        start=digest_of(start) if start is not None else "",
    )
    crops = CropStore.open([*_crops(args), *_harvest(args)])
    distiller = Distiller(MobileFaceNet(args.embedding_size, "relu"), teacher, EMBEDDING_SIZE, crops, recipe)
    checkpoint = args.work / CHECKPOINT
    if checkpoint.is_file():
        distiller.load(checkpoint)
    elif start is not None:
        distiller.begin_from(load_embedder(start)[0])
    journal = Journal(distiller, args.work, args.save_every, args.evaluate_every)
    if distiller.phase != DONE:
        distiller.run(journal)
        journal.finish(distiller)
    if args.output is not None:
        finished = distiller.finished()
        save_embedder(args.output, finished)
        journal.line(f"wrote {args.output} and {_write_card(args, distiller, finished)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.workers < 1 or args.batch % args.workers or args.batch // args.workers < 2:
        raise InputError(f"--batch {args.batch} --workers {args.workers}: each worker needs the same two crops or more")
    if min(args.steps, args.block_steps, args.hold_out, args.bank) < 1:
        raise InputError("--steps, --block-steps, --bank and --hold-out: at least 1")
    if not 0 <= args.stages < math.inf:
        raise InputError(f"--stages {args.stages}: a weight is 0 or more")
    if not 0 <= args.gentle <= 1:
        raise InputError(f"--gentle {args.gentle}: a share lies in 0..1")
    if not 0 < args.lr < math.inf:
        raise InputError(f"--lr {args.lr}: a learning rate lies above 0")
    if args.work.exists() and not args.work.is_dir():
        raise InputError(f"{args.work}: is a file; --work names a folder")
    if (args.pairs is None) != (args.images is None):
        raise InputError("--pairs is a list of pictures, --images the folder that holds them: they go together")


def _crops(args: argparse.Namespace) -> list[Path]:
    """`--crops`, or with `--realign` the archive of them cut anew, made once for a work folder."""
    if not args.realign:
        return list(args.crops)
    from training.distill.crops import CropStore
    from training.distill.realign import realign

    finder = _photos_finder(args)
    made_of = hashlib.sha256(f"{CropStore.open(args.crops).digest()} {finder.digest()}".encode()).hexdigest()
    archive: Path = args.work / REALIGNED.format(made_of[:12])  # other crops, or another finder, make another
    if not archive.is_file():
        print(f"{realign(args.crops, finder.open(), archive)} crops cut anew")
    return [archive]


def _photos_finder(args: argparse.Namespace) -> Finder:
    from training.faces import Finder

    return Finder.parse(args.photos_detector or next(iter(args.detector), None))


def _harvest(args: argparse.Namespace) -> list[Path]:
    """The archive of faces cut from `--photos`, made once for a work folder."""
    if not args.photos:
        return []
    from training.distill.harvest import harvest

    archive: Path = args.work / HARVESTED
    if not archive.is_file():
        print(f"{harvest(args.photos, _photos_finder(args).open(), archive)} faces cut from photos")
    return [archive]


def _write_card(args: argparse.Namespace, distiller: Distiller, finished: MobileFaceNet) -> Path:
    from edge.weights.digests import digest_of
    from training.distill.measure import read_verification_set, write_distilled_card
    from training.faces import Finder

    sets = []
    for name in (args.detector or [None]) if args.pairs is not None else []:
        finder = Finder.parse(name)
        data = args.pairs.parent.name.upper()
        sets.append(read_verification_set(args.pairs, args.images, finder.open(), data, finder.stem))
    teacher = {
        "name": "MobileFaceNet of foamliu, asked both ways",
        "licence": "Apache-2.0",
        "sha256": digest_of(args.teacher),
    }
    return write_distilled_card(args.output, distiller, finished, teacher, args.terms, sets)
