"""Arguments that several verbs share, and what they open."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ContractError, GalleryError, InputError

if TYPE_CHECKING:
    from edge.analyze import FaceAnalyzer
    from edge.bundle import Bundle
    from edge.gallery import Key, Place

PRECISIONS = ("fp32", "fp16", "int8")

PLACES = "a directory, or milvus:FILE.db or milvus:http://HOST:PORT, then /GALLERY and /SITE if wanted"
"""What may stand where a gallery is named."""


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """--bundle, --require-signed, precisions and engines, --preprocess, --detection-score, and what belongs to them."""
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="bundle made by edge export")
    add_require_signed(parser)
    parser.add_argument("--precision", choices=PRECISIONS, help="of the models (default: the first in the bundle)")
    parser.add_argument(
        "--detector-precision",
        choices=PRECISIONS,
        help="of the detector alone: fp32 beside --precision int8 costs hardly any time with onnxruntime, where INT8 "
        "speeds up the embedder and not the detector (default: that of --precision)",
    )
    parser.add_argument(
        "--engine",
        default="onnxruntime",
        help=(
            "onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, openvino-bf16, tensorrt, triton, or "
            "auto: the fastest that agrees (default: %(default)s)"
        ),
    )
    parser.add_argument(
        "--detector-engine",
        metavar="ENGINE",
        help="of detector and landmarker, such as onnxruntime on this machine while --engine triton embeds on another "
        "(default: that of --engine)",
    )
    parser.add_argument(
        "--preprocess",
        choices=("auto", "gpu", "cpu"),
        default="auto",
        help=(
            "where frames are scaled, faces cut out and, in edge run, matched. gpu needs --engine tensorrt and the "
            "CUDA kernels; cameras may give it NV12 (default: auto, the GPU where both are there)"
        ),
    )
    add_detection_score(parser)
    add_triton(parser)


def add_detection_score(parser: argparse._ActionsContainer) -> None:
    """--detection-score."""
    parser.add_argument(
        "--detection-score",
        type=detection_score,
        metavar="S",
        help="score from which a detection counts as a face (default: what the bundle states for the detector, else "
        "0.5)",
    )


def add_triton(parser: argparse._ActionsContainer) -> None:
    """--triton-url, --triton-timeout."""
    parser.add_argument(
        "--triton-url",
        metavar="URL",
        help="server of --engine triton: grpc://HOST:8001, or grpcs:// over TLS (default: $ARCEDGE_TRITON_URL)",
    )
    parser.add_argument(
        "--triton-timeout",
        type=positive_float,
        metavar="S",
        help="seconds it may take to answer, attempts included (default: $ARCEDGE_TRITON_TIMEOUT, else 5)",
    )


def settle_triton(args: argparse.Namespace) -> None:
    """Puts the server that the user named where the engine looks for it. Raises InputError for what is no address.

    The environment, because the processes that some verbs start open the same models.
    """
    if args.triton_timeout is None and args.triton_url is None:
        return
    from edge.engines.triton.address import TIMEOUT_ENVIRONMENT, URL_ENVIRONMENT, Address

    if args.triton_timeout is not None:
        os.environ[TIMEOUT_ENVIRONMENT] = str(args.triton_timeout)
    if args.triton_url is not None:
        os.environ[URL_ENVIRONMENT] = str(Address.parse(args.triton_url))


def add_require_signed(parser: argparse.ArgumentParser) -> None:
    """--require-signed."""
    parser.add_argument(
        "--require-signed",
        type=Path,
        metavar="PUBKEY",
        help="refuse a bundle that is not signed with this key (default: $ARCEDGE_REQUIRE_SIGNED, else none is needed)",
    )


def add_gallery(parser: argparse.ArgumentParser) -> None:
    """--gallery, --key-file."""
    parser.add_argument("--gallery", required=True, type=place, metavar="GALLERY", help=f"gallery: {PLACES}")
    add_key(parser)


def add_key(parser: argparse.ArgumentParser) -> None:
    """--key-file."""
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="key of an encrypted gallery (default: $ARCEDGE_GALLERY_KEY_FILE or $ARCEDGE_GALLERY_KEY)",
    )


def local_gallery(args: argparse.Namespace) -> Path:
    """The directory of a gallery that is matched against at every frame. Raises InputError for a place that may go."""
    if not isinstance(args.gallery, Path):
        raise InputError(
            f"{args.gallery}: a camera matches against a gallery of its own, so that it goes on when the centre is "
            f"away; copy it first: edge gallery pull {args.gallery} DIR"
        )
    return args.gallery


def gallery_key(args: argparse.Namespace) -> Key | None:
    """The key the user named, here or in the environment. Raises InputError or GalleryError."""
    from edge.gallery import Key

    return Key.from_environment() if args.key_file is None else Key.read(args.key_file)


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """--threshold."""
    parser.add_argument(
        "--threshold",
        type=cosine,
        metavar="COS",
        help="similarity from which a face has a name (default: the bundle's)",
    )


def open_bundle(args: argparse.Namespace) -> Bundle:
    """The bundle named, signed where the user requires it. Raises BundleError, and InputError for an unfit key."""
    return open_signed(args.bundle, args.require_signed)


def open_signed(path: Path, require_signed: Path | None) -> Bundle:
    """A bundle, signed with the key of a file where one is named. Raises as `open_bundle` does."""
    from edge.bundle import Bundle
    from edge.signing import PublicKey

    return Bundle.open(path, PublicKey.read(require_signed) if require_signed is not None else None)


def open_analyzer(args: argparse.Namespace, precision: str | None = None) -> FaceAnalyzer:
    """The models asked for; `precision` counts where the user asked for none. Raises BundleError or EngineError."""
    import cv2

    from edge.analyze import AnalyzerOptions, FaceAnalyzer
    from edge.detect import DetectorOptions

    # Pools of OpenCV and of the engines would fight over the same cores.
    cv2.setNumThreads(1)
    bundle, wanted = open_bundle(args), args.precision or precision
    settle_engine(args, bundle, wanted)
    return FaceAnalyzer(
        bundle,
        AnalyzerOptions(
            precision=wanted,
            engine=args.engine,
            detector_engine=args.detector_engine,
            detector_precision=args.detector_precision,
            detector=DetectorOptions(min_score=args.detection_score),
            preprocess=args.preprocess,
        ),
    )


def settle_engine(args: argparse.Namespace, bundle: Bundle, precision: str | None) -> None:
    """Puts the engine that `auto` stands for into `args`, and says on standard error which it is and why.

    The detector's too, with its precision, in `detector_engine` and `detector_precision`, where neither was named.
    Called again, as for each worker, it changes nothing. Raises EngineError where no engine of this machine computes
    what the bundle says, InputError for an unfit address.
    """
    from edge.auto import AUTO, choose_engine

    settle_triton(args)
    if args.engine == AUTO:
        choice = choose_engine(bundle, precision)
        print(choice.words, file=sys.stderr)
        args.engine = choice.engine
        if args.detector_engine is None and args.detector_precision is None:
            args.detector_engine, args.detector_precision = choice.detector_engine, choice.detector_precision


def threshold_of(args: argparse.Namespace) -> float:
    """The user's, else the bundle's, without opening a model, for which an engine may have to be built first.

    Raises ContractError where there is neither, and as `open_bundle` and `settle_engine` do.
    """
    if args.threshold is not None:
        return float(args.threshold)
    bundle = open_bundle(args)
    settle_engine(args, bundle, args.precision)
    variant = bundle.select("embedder", args.precision, args.engine)
    if variant.threshold is None:
        raise ContractError(f"{args.bundle}: states no threshold for {variant.name}; give one with --threshold")
    return variant.threshold.similarity


def positive(text: str) -> int:
    """An argument that is a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def positive_float(text: str) -> float:
    """An argument above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def place(text: str) -> Place:
    """An argument that names a gallery."""
    from edge.gallery import parse_place

    try:
        return parse_place(text)
    except GalleryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def cosine(text: str) -> float:
    """An argument in [-1, 1]."""
    value = float(text)
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no cosine: -1 to 1 is")
    return value


def detection_score(text: str) -> float:
    """An argument above 0, and 1 at most."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no score: above 0, and 1 at most")
    return value


def size(text: str) -> tuple[int, int]:
    """WxH in pixels."""
    width, _, height = text.lower().partition("x")
    try:
        return positive(width), positive(height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT, as in 1280x720") from error
