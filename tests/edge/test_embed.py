from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.detect import DetectorOptions
from edge.embed import Embedder
from edge.engines import open_session
from edge.errors import BundleError, ContractError, EngineError
from edge.manifest import DetectionScore, Manifest


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 112, 112, 3)).astype(np.uint8)


def test_embeddings_are_unit_rows_and_do_not_depend_on_the_batch(toy: Any, toy_models: dict[str, bytes]) -> None:
    with open_session(toy_models["embedder"]) as session:
        embedder = Embedder(session, toy.embedder_contract)
        batch = crops(5)
        together = embedder.embed(batch)
        assert together.shape == (5, 48)
        assert together.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        for i in range(5):
            np.testing.assert_allclose(embedder.embed(batch[i : i + 1])[0], together[i], atol=1e-5)
        assert embedder.embed(batch[:0]).shape == (0, 48)


def test_a_model_of_batch_one_is_run_face_by_face(toy: Any, toy_models: dict[str, bytes]) -> None:
    model = onnx.load_from_string(toy_models["embedder"])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with open_session(model.SerializeToString()) as one, open_session(toy_models["embedder"]) as many:
        batch = crops(3)
        np.testing.assert_allclose(
            Embedder(one, toy.embedder_contract).embed(batch),
            Embedder(many, toy.embedder_contract).embed(batch),
            atol=1e-5,
        )


def test_what_is_no_crop_and_what_is_no_embedding_is_refused(toy: Any, toy_models: dict[str, bytes]) -> None:
    with open_session(toy_models["embedder"]) as session:
        embedder = Embedder(session, toy.embedder_contract)
        for wrong in (crops(1)[0], crops(1)[:, :50], crops(1).astype(np.float32)):
            with pytest.raises(ContractError, match="the embedder takes"):
                embedder.embed(wrong)
        longer = Embedder(session, replace(toy.embedder_contract, embedding_size=512))
        with pytest.raises(EngineError, match="contract wrong"):
            longer.embed(crops(2))
        with pytest.raises(ContractError, match="an embedder is needed"):
            Embedder(session, toy.detector_contract)


def test_one_analyzer_does_detection_alignment_and_embedding(toy: Any) -> None:
    with FaceAnalyzer(toy.bundle) as analyzer:
        image = toy.scene(400, 240, [(1, 40, 40), (2, 200, 120)])
        faces = analyzer.detect(image)
        vectors = analyzer.embed(analyzer.align(image, faces))
        again = toy.scene(400, 240, [(1, 300, 8)])
        (same,) = analyzer.embed(analyzer.align(again, analyzer.detect(again)))
        similar = sorted(vectors @ same)
        assert similar[1] > 0.9
        assert similar[0] < 0.6
        assert analyzer.align(image, []).shape == (0, 112, 112, 3)
        assert analyzer.threshold is not None
        assert analyzer.threshold.similarity == toy.threshold


def test_a_precision_the_bundle_lacks_is_named(toy: Any) -> None:
    with pytest.raises(BundleError, match="no int8 embedder"):
        FaceAnalyzer(toy.bundle, AnalyzerOptions(precision="int8"))


def test_a_face_counts_from_the_score_of_the_variant_that_was_opened_unless_the_user_names_one(toy: Any) -> None:
    stated = DetectionScore(0.47, 0.5, 0.46, 0.48, 1000, 960, 300, "test")
    manifest = toy.bundle.manifest
    detector = replace(toy.bundle.select("detector"), detection_score=stated)
    other = replace(manifest, variants=(detector, toy.bundle.select("embedder")))
    bundle = replace(toy.bundle, manifest=Manifest.from_dict(json.loads(json.dumps(other.to_dict()))))
    assert bundle.select("detector").detection_score == stated

    def least(bundle: Bundle, options: AnalyzerOptions | None = None) -> float:
        with FaceAnalyzer(bundle, options) as analyzer:
            return analyzer.detector.options.score

    assert least(bundle) == 0.47
    assert least(bundle, AnalyzerOptions(detector=DetectorOptions(min_score=0.8))) == 0.8
    assert least(toy.bundle) == 0.5, "a bundle that states none"
    for wrong in ({"score": 0}, {"low": 0.6}, {"reference": float("nan")}, {"faces": -1}):
        with pytest.raises(BundleError, match="impossible"):
            replace(stated, **wrong)
