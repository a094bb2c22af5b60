"""`edge train detector`: its arguments, and a run of them from the pictures to the weights and their card."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import torch

from edge.errors import InputError
from edge.weights.resolve import find_weights
from training.card import write_card
from training.detector.labels import LandmarkTeacher, read_pools
from training.detector.network import load_unfolded, save
from training.detector.run import Recipe, Run
from training.detector.teacher import TAPS, Teacher


def configure_detector(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `edge train detector`."""
    recipe = Recipe()
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with wider/train, scenes/celeba.zip and train/faces112-*.zip"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="yunet_n_dynamic.onnx, labels landmarks")
    parser.add_argument(
        "--mesh",
        metavar="FILE|NAME",
        help="MediaPipe's face mesh, places the landmarks: a file, or mediapipe-face-mesh once it is fetched "
        "(needs the extra openvino; default: YuNet-n places them)",
    )
    parser.add_argument("--unit-teacher", type=Path, required=True, help="yunet_s_dynamic.onnx, teaches unit by unit")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument(
        "--start", type=Path, help="weights (.safetensors) to begin phase 2 from, instead of what phase 1 makes"
    )
    parser.add_argument("--state", type=Path, help="file to stop and resume with (default: beside --out, .state)")
    parser.add_argument(
        "--bank", type=int, default=recipe.bank, help="samples of phase 1, 4 MB each (default: %(default)s)"
    )
    parser.add_argument(
        "--unit-steps", type=int, default=recipe.unit_steps, help="phase 1: updates a unit (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=recipe.steps,
        help="updates of phase 2, 0 to leave it out; may change on resuming (default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, default=recipe.batch, help="samples an update of phase 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=recipe.rate, help="highest learning rate of phase 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--loosened",
        type=float,
        default=recipe.loosened,
        metavar="SHARE",
        help="how tightly phase 2 holds scores and boxes when it begins, as a share of how it ends; "
        "1 throughout mends what was loosened (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=recipe.size,
        help="pixels of a sample's side, a multiple of 32 (default: %(default)s)",
    )
    parser.add_argument(
        "--crops-of-each",
        type=int,
        default=recipe.crops_of_each,
        metavar="CROPS",
        help="about so many crops of each archive at most (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=recipe.seed, help="of weights and samples (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--validate-every",
        type=int,
        default=500,
        metavar="STEPS",
        help="steps between two looks at the held-out pictures (default: %(default)s)",
    )


def run_detector(args: argparse.Namespace) -> int:
    """Trains, prints what it measures on the held-out pictures, and writes the weights."""
    if (
        args.size < 64
        or args.size % 32
        or min(args.unit_steps, args.bank, args.crops_of_each, args.threads) < 1
        or args.batch < 2
    ):
        raise InputError(
            "--size is a multiple of 32 from 64 up; --batch is 2 or more; "
            "--bank, --unit-steps, --crops-of-each and --threads are 1 or more"
        )
    if args.steps < 0:
        raise InputError(f"--steps {args.steps}: 0 leaves out phase 2; there is no fewer")
    if not 0 < args.rate < math.inf:
        raise InputError(f"--rate {args.rate}: a learning rate lies above 0")
    if not 0 < args.loosened <= 1:
        raise InputError(f"--loosened {args.loosened}: a share lies above 0 and is 1 at most")
    if args.validate_every < 1:
        raise InputError(f"--validate-every {args.validate_every}: 1 step is the least")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    recipe = Recipe(
        bank=args.bank,
        unit_steps=args.unit_steps,
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        loosened=args.loosened,
        size=args.size,
        seed=args.seed,
        crops_of_each=args.crops_of_each,
    )
    if args.start is not None:
        load_unfolded(args.start)  # before the pictures are labelled, which takes minutes
    teacher = Teacher(args.unit_teacher, TAPS, args.threads)
    labeller = LandmarkTeacher(args.teacher, find_weights(args.mesh, "teacher") if args.mesh else None)
    pools = read_pools(args.data, labeller, recipe.crops_of_each, args.out.with_suffix(".labels.npz"))
    print(
        f"{len(pools.scenes)} scenes with true boxes ({len(pools.held_out)} more held out), "
        f"{len(pools.portraits)} photos and {len(pools.crops)} crops labelled by the teacher",
        flush=True,
    )
    state = args.state or args.out.with_suffix(".state")
    run = Run(recipe, teacher, pools, state, args.start, labeller.name)
    run.train(args.validate_every)
    save(run.averaged, args.out, steps=recipe.steps, seed=recipe.seed)
    write_card(args.out.with_suffix(".training.json"), run.describe())
    print(f"{args.out}: {run.spent_wall:.0f} s wall, {run.spent_cpu:.0f} s CPU in all", flush=True)
    return 0
