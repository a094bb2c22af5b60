"""TensorRT engines of a bundle's models, built on this device ahead of time and proved on real pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge.align import align_wide
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle, runs_on
from edge.engine_cache import Passport
from edge.engines.base import Array
from edge.engines.onnxruntime import model_specs
from edge.engines.tensorrt import TensorRtEngine, TensorRtOptions
from edge.errors import BundleError, InputError
from edge.manifest import Variant
from edge.model_input import to_model
from edge.pictures import find_pictures, read_picture
from edge.types import Image

MOST_PHOTOS = 32
MOST_FRAMES = 8
FRAME_SIDE = 320
"""Pixels of the pictures a detector is judged on."""


def photos_of(folder: Path) -> list[Path]:
    """Those of a folder that are looked at. Raises InputError where there is none."""
    return find_pictures([folder])[:MOST_PHOTOS]


def real_pictures(bundle: Bundle, photos: Path) -> dict[str, Image]:
    """Pictures by role, (N, H, W, 3) uint8 BGR: aligned faces for embedders, wider ones for landmarkers, whole photos
    for detectors.

    From the first photos of a folder, faces found in FP32 by ONNX Runtime. Raises InputError where none can be read or
    shows a face, BundleError where the bundle cannot find them.
    """
    paths, images = photos_of(photos), list[Image]()
    for path in paths:
        with suppress(InputError):
            images.append(read_picture(path))
    if not images:
        raise InputError(f"{photos}: none of its first {len(paths)} pictures can be read; name photos of faces")
    with FaceAnalyzer(bundle, AnalyzerOptions(precision="fp32")) as analyzer:
        found = [(image, analyzer.main_face(image)) for image in images]
        faces = [(image, face) for image, face in found if face is not None]
        crops = [analyzer.align(image, [face])[0] for image, face in faces]
        wide = [align_wide(image, face.landmarks) for image, face in faces]
    if not crops:
        raise InputError(f"{photos}: no face in its first {len(images)} pictures; name photos of faces")
    whole = [
        cv2.resize(image, (FRAME_SIDE, FRAME_SIDE), interpolation=cv2.INTER_AREA) for image in images[:MOST_FRAMES]
    ]
    return {"embedder": np.stack(crops), "landmarker": np.stack(wide), "detector": np.stack(whole)}


def as_probes(model: bytes, variant: Variant, pictures: Image) -> dict[str, Array]:
    """Pictures as a model takes them, under its input's name."""
    return {model_specs(model)[0][0].name: to_model(pictures, variant.contract)}


def tensorrt_variants(bundle: Bundle) -> list[Variant]:
    """The variants TensorRT takes: INT8 only where it was laid out for it."""
    return [v for v in bundle.manifest.variants if runs_on(v.engine, v.precision, "tensorrt")]


def build_engines(
    bundle: Bundle,
    precision: str | None = None,
    pictures: Mapping[str, Image] | None = None,
    options: TensorRtOptions | None = None,
) -> Iterator[tuple[Variant, Passport]]:
    """Builds the engine of each variant that TensorRT takes, or finds it, and proves it on `pictures` by role.

    precision: of that alone, and the landmarker that goes with its detector, which there is not in every precision. An
    engine that was proved on made-up pictures before is proved anew. Raises EngineError
    where one cannot be built or gives something else than its model, BundleError where there is none to build.
    """
    variants = [variant for variant in tensorrt_variants(bundle) if precision in (None, variant.precision)]
    if not variants:
        what = f"{precision} model" if precision else "model"
        raise BundleError(f"{bundle.path}: no {what} for tensorrt; export it with --target onnx,tensorrt")
    if any(variant.role == "detector" for variant in variants):
        landmarker = bundle.landmarker(precision, "tensorrt")
        if landmarker is not None and landmarker not in variants:
            variants.append(landmarker)
    for variant in variants:
        model = bundle.load(variant)
        probes = as_probes(model, variant, pictures[variant.role]) if pictures and variant.role in pictures else None
        chosen = replace(options or TensorRtOptions(), probes=probes)
        yield variant, TensorRtEngine(chosen).load(model).passport
