"""The parts of distillation: losses, blocks, crops, harvest, teacher."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from edge.align import align
from edge.errors import InputError
from edge.metrics.pairs import PairRows
from training.distill.blocks import BLOCK_NAMES, STAGE_ENDS, chain_features, run_frozen
from training.distill.crops import SIZE, CropStore, EpochOrder, augment
from training.distill.feed import batches
from training.distill.harvest import harvest
from training.distill.losses import embedding_map, relational_error, relative_error
from training.distill.measure import VerificationSet, verify
from training.distill.replicas import gather_gradients, replicate
from training.distill.teacher import EMBEDDING_SIZE, MEAN, STD, BothWays, Teacher, fuse_batchnorm, load_teacher
from training.mobilefacenet import MobileFaceNet
from training.teaching import measure_statistics


def _photo(seed: int, size: int = SIZE) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _archive(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for seed, name in enumerate(names):
            archive.writestr(name, cv2.imencode(".png", _photo(seed))[1].tobytes())
    return path


def _unsettled(student: MobileFaceNet) -> MobileFaceNet:
    """BatchNorm as after some training: nothing at its default."""
    generator = torch.Generator().manual_seed(1)
    for module in student.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0.0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0.0, 0.1, generator=generator)
    return student


class TestLosses:
    def test_the_map_keeps_every_cosine(self) -> None:
        lift = embedding_map(512, 128, seed=3)
        vectors = normalize(torch.randn(40, 128), dim=1)
        lifted = vectors @ lift.T
        assert torch.allclose(lifted @ lifted.T, vectors @ vectors.T, atol=1e-5)
        assert torch.allclose(lift.T @ lift, torch.eye(128), atol=1e-5)

    def test_the_map_is_a_function_of_its_seed(self) -> None:
        assert torch.equal(embedding_map(64, 16, seed=1), embedding_map(64, 16, seed=1))
        assert not torch.allclose(embedding_map(64, 16, seed=1), embedding_map(64, 16, seed=2))

    def test_no_map_into_fewer_dimensions(self) -> None:
        with pytest.raises(ValueError, match="keeps every cosine"):
            embedding_map(64, 128, seed=0)

    def test_relative_error_is_one_for_zeros_and_ignores_scale(self) -> None:
        target = torch.randn(4, 8, 3, 3)
        assert relative_error(target, target) == 0.0
        assert relative_error(torch.zeros_like(target), target).item() == pytest.approx(1.0)
        near = target + 0.1 * torch.randn_like(target)
        assert relative_error(7 * near, 7 * target).item() == pytest.approx(
            relative_error(near, target).item(), rel=1e-5
        )

    def test_relational_error_is_the_mean_over_pairs(self) -> None:
        a, b = normalize(torch.randn(5, 6), dim=1), normalize(torch.randn(5, 9), dim=1)
        pairs = [((a[i] @ a[j]) - (b[i] @ b[j])) ** 2 for i in range(5) for j in range(5) if i != j]
        assert relational_error(a, b).item() == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-5)


class TestBlocks:
    def test_the_chain_is_the_network(self) -> None:
        student = _unsettled(MobileFaceNet(64)).eval()
        x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
        with torch.no_grad():
            outputs, embedding = chain_features(student, x)
            assert torch.allclose(embedding, student.features(x), atol=1e-5)
        assert tuple(outputs) == BLOCK_NAMES
        shapes = [tuple(outputs[name].shape[1:]) for name in STAGE_ENDS]
        assert shapes == [(64, 28, 28), (128, 14, 14), (128, 7, 7), (512, 7, 7), (512, 1, 1)]

    def test_frozen_is_evaluation_mode_in_value_and_gradient(self) -> None:
        student = _unsettled(MobileFaceNet(64)).double().eval()
        x = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64) * 2 - 1
        gradients = []
        embeddings = []
        for run in (run_frozen, lambda module, y: module(y)):
            student.zero_grad()
            _, embedding = chain_features(student, x, run)
            embedding.square().sum().backward()
            embeddings.append(embedding.detach())
            gradients.append([p.grad.clone() for p in student.parameters()])
        assert torch.allclose(*embeddings)
        assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))
        assert any(gradient.abs().max() > 0 for gradient in gradients[0])

    def test_a_strided_depthwise_convolution_is_the_same_function_in_bfloat16(self) -> None:
        block = _unsettled(MobileFaceNet(64)).eval().conv_23.conv_dw
        x = torch.randn(2, 128, 10, 12)
        answers = []
        for in_bfloat16 in (True, False):
            pixels = x.clone().requires_grad_()
            block.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
                y = run_frozen(block, pixels)
            assert y.shape == (2, 128, 5, 6)
            y.float().square().sum().backward()
            answers.append((y.detach().float(), pixels.grad, block.conv.weight.grad.clone()))
        for own, exact in zip(*answers, strict=True):
            assert float((own - exact).norm() / exact.norm()) < 0.02

    def test_frozen_refuses_what_it_does_not_know(self) -> None:
        with pytest.raises(TypeError, match="Tanh"):
            run_frozen(nn.Tanh(), torch.zeros(1))


class TestReplicas:
    def test_replicas_share_parameters_and_average_gradients(self) -> None:
        first, second = replicate(MobileFaceNet(64), 2)
        for value, replica in ((1.0, first), (3.0, second)):
            for parameter in replica.parameters():
                parameter.grad = torch.full_like(parameter, value)
        gather_gradients([first, second])
        assert all(float(p.grad.min()) == float(p.grad.max()) == 2.0 for p in first.parameters())
        with torch.no_grad():
            first.linear.weight.fill_(0.5)
        assert float(second.linear.weight.detach().mean()) == 0.5

    def test_statistics_are_the_mean_over_batches(self) -> None:
        student = MobileFaceNet(64)
        inputs = [torch.rand(4, 3, SIZE, SIZE) * 2 - 1 for _ in range(2)]
        measure_statistics(student, inputs)
        with torch.no_grad():
            seen = [student.conv1.conv(x) for x in inputs]
        mean = torch.stack([y.mean(dim=(0, 2, 3)) for y in seen]).mean(dim=0)
        assert torch.allclose(student.conv1.bn.running_mean, mean, atol=1e-5)
        assert student.conv1.bn.momentum == 0.1


class TestCrops:
    def test_archive_and_folder_are_read_sorted(self, tmp_path: Path) -> None:
        archive = _archive(tmp_path / "b.zip", ["z/1.png", "a/2.png", "a/note.txt"])
        folder = tmp_path / "a" / "someone"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "x.png"), _photo(9))
        store = CropStore.open([archive, tmp_path / "a"])
        assert store.names == ["a/someone/x.png", "b/a/2.png", "b/z/1.png"]
        assert np.array_equal(store.image(0), _photo(9))
        assert store.digest() == CropStore.open([tmp_path / "a", archive]).digest()

    def test_digest_follows_the_pixels(self, tmp_path: Path) -> None:
        one = CropStore.open([_archive(tmp_path / "x.zip", ["a/1.png", "a/2.png"])])
        (tmp_path / "y").mkdir()
        two = CropStore.open([_archive(tmp_path / "y" / "x.zip", ["a/2.png", "a/1.png"])])
        assert one.names == two.names
        assert one.digest() != two.digest()

    def test_nobody_is_on_both_sides(self, tmp_path: Path) -> None:
        names = [f"{person}/{shot}.png" for person in range(30) for shot in range(2)]
        store = CropStore.open([_archive(tmp_path / "x.zip", names)])
        training, held_out = store.split(4)
        assert sorted(training + held_out) == list(range(60))
        assert 0 < len(held_out) < 40
        people = [{store.names[i].split("/")[1] for i in side} for side in (training, held_out)]
        assert not people[0] & people[1]

    def test_every_crop_once_an_epoch_and_from_any_step(self) -> None:
        order = EpochOrder(list(range(10, 22)), batch=4, seed=5)
        steps = [order.step(step) for step in range(6)]
        for epoch in (steps[:3], steps[3:]):
            assert sorted(index for step in epoch for index in step) == list(range(10, 22))
        assert steps[:3] != steps[3:]
        assert EpochOrder(list(range(10, 22)), batch=4, seed=5).step(4) == steps[4]

    def test_augmentation_is_a_function_of_its_generator(self) -> None:
        crop = _photo(0)
        seen = [augment(crop, np.random.default_rng(seed)) for seed in range(30)]
        again = [augment(crop, np.random.default_rng(seed)) for seed in range(30)]
        assert all(image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image in seen)
        assert all(np.array_equal(a, b) for a, b in zip(seen, again, strict=True))
        assert len({image.tobytes() for image in seen}) == 30
        assert np.array_equal(crop, _photo(0))

    def test_crops_that_are_not_spoilt_keep_their_colours_and_detail(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        sharpness: list[list[float]] = []
        for spoil in (0.0, 1.0):
            shown = [augment(noise, np.random.default_rng(seed), spoil) for seed in range(60)]
            assert any((image[..., 0] == image[..., 1]).all() for image in shown) == (spoil > 0)
            sharpness.append([float(cv2.Laplacian(image, cv2.CV_32F).std()) for image in shown])
        gentle, spoilt = map(sorted, sharpness)
        assert gentle[5] > 3 * spoilt[5]

    def test_augmentation_flips_half_and_keeps_the_face_in_place(self) -> None:
        crop = np.zeros((SIZE, SIZE, 3), np.uint8)
        crop[48:64, 20:36] = 255
        sides = []
        for seed in range(200):
            weight = augment(crop, np.random.default_rng(seed)).astype(np.float64).sum(axis=2)
            weight = np.where(weight > 0.7 * weight.max(), 1.0, 0.0)
            sides.append((weight.sum(axis=0) @ np.arange(SIZE)) / weight.sum())
        left = sum(side < SIZE / 2 for side in sides)
        assert 70 <= left <= 130

    def test_what_is_no_crop_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="neither a folder nor a zip"):
            CropStore.open([tmp_path / "missing.zip"])
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="holds no image"):
            CropStore.open([tmp_path / "empty"])
        cv2.imwrite(str(tmp_path / "empty" / "big.png"), _photo(0, 200))
        with pytest.raises(InputError, match=r"big\.png.*112×112"):
            CropStore.open([tmp_path / "empty"]).image(0)

    def test_batches_come_in_order_and_errors_arrive(self, tmp_path: Path) -> None:
        folder = tmp_path / "people" / "one"
        folder.mkdir(parents=True)
        for seed in range(4):
            cv2.imwrite(str(folder / f"{seed}.png"), _photo(seed))
        store = CropStore.open([tmp_path / "people"])
        order = EpochOrder([0, 1, 2, 3], batch=2, seed=0)
        straight = list(batches(store, order, (7,), range(5)))
        assert len(straight) == 5
        assert straight[0].shape == (2, 3, SIZE, SIZE)
        late = list(batches(store, order, (7,), range(3, 5)))
        assert all(torch.equal(a, b) for a, b in zip(straight[3:], late, strict=True))
        cv2.imwrite(str(folder / "4.png"), _photo(0, 64))
        with pytest.raises(InputError, match=r"4\.png"):
            list(batches(CropStore.open([tmp_path / "people"]), EpochOrder([4], 2, 0), (7,), range(1)))


class TestTeacher:
    @pytest.fixture
    def random_teacher(self) -> Teacher:
        torch.manual_seed(0)
        teacher = Teacher()
        for module in teacher.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
        return teacher.eval()

    def test_it_answers_in_the_shapes_of_the_student(self, random_teacher: Teacher) -> None:
        x = torch.rand(2, 3, SIZE, SIZE) * 255
        with torch.no_grad():
            answer = random_teacher(x)
            outputs, _ = chain_features(MobileFaceNet(64).eval(), x)
        assert {name: y.shape for name, y in answer.blocks.items()} == {name: y.shape for name, y in outputs.items()}
        assert answer.embedding.shape == (2, EMBEDDING_SIZE)

    def test_folding_batchnorm_changes_nothing(self, random_teacher: Teacher, tmp_path: Path) -> None:
        torch.save(random_teacher.state_dict(), tmp_path / "teacher.pt")
        x = torch.rand(2, 3, SIZE, SIZE) * 255
        with torch.no_grad():
            before = random_teacher(x)
            after = load_teacher(tmp_path / "teacher.pt")(x)
        assert torch.allclose(before.embedding, after.embedding, atol=1e-4)
        assert all(torch.allclose(before.blocks[name], after.blocks[name], atol=1e-4) for name in BLOCK_NAMES)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fuse_batchnorm(random_teacher).modules())

    @pytest.mark.parametrize("content", [b"no weights", b""])
    def test_other_files_are_refused_in_one_line(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(InputError, match="not the weights of foamliu's") as caught:
            load_teacher(tmp_path / "x.pt")
        assert "\n" not in str(caught.value)

    def test_other_networks_are_refused(self, tmp_path: Path) -> None:
        torch.save(MobileFaceNet(64).state_dict(), tmp_path / "x.pt")
        with pytest.raises(InputError, match="not the weights of foamliu's"):
            load_teacher(tmp_path / "x.pt")

    @pytest.mark.realdata
    def test_the_published_weights_answer_as_their_onnx(self, shared_data: Path) -> None:
        import onnxruntime

        teacher = load_teacher(shared_data / "models" / "mobilefacenet_foamliu_128.pt")
        session = onnxruntime.InferenceSession(shared_data / "models" / "mobilefacenet_foamliu_128.onnx")
        pixels = torch.from_numpy(_photo(3)[..., ::-1].copy()).permute(2, 0, 1)[None].float()
        scaled = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        expected = session.run(None, {session.get_inputs()[0].name: scaled.numpy()})[0]
        with torch.no_grad():
            assert np.allclose(teacher(pixels).embedding.numpy(), expected, atol=1e-4)


def test_verification_of_embeddings_that_tell_people_apart_and_of_such_that_do_not() -> None:
    people = np.repeat(np.arange(20), 3)
    rng = np.random.default_rng(0)
    same = np.tile([True, False], 20)
    first = np.repeat(np.arange(20) * 3, 2)
    data = VerificationSet(
        name="made up",
        detector="nobody",
        crops=np.zeros((60, SIZE, SIZE, 3), np.uint8),
        identities=people,
        rows=PairRows(first, np.where(same, first + 1, (first + 3) % 60), same, np.repeat([0, 1], 20)),
        missed=0,
    )
    perfect = verify(np.eye(32, dtype=np.float32)[people], data)
    assert perfect.accuracy.accuracy.value == 1.0
    assert perfect.pairs == (60, 60 * 59 // 2 - 60)
    assert [tar.tar.value if tar.tar else None for tar in perfect.tars] == [1.0, 1.0, None]
    noise = rng.normal(size=(60, 32)).astype(np.float32)
    blind = verify(noise / np.linalg.norm(noise, axis=1, keepdims=True), data)
    assert blind.accuracy.accuracy.value < 0.8
    assert blind.tars[0].tar is not None
    assert blind.tars[0].tar.value < 0.2


@pytest.mark.realdata
def test_harvest_cuts_and_aligns_the_faces_of_photos(shared_data: Path, tmp_path: Path) -> None:
    from training.faces import open_detector

    detector = open_detector(shared_data / "models" / "yunet_n_dynamic.onnx")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("six_faces.jpg", "no_face.png"):
        (photos / name).write_bytes((shared_data / "data" / "scenes" / name).read_bytes())
    assert harvest([photos], detector, tmp_path / "faces.zip") == 6
    store = CropStore.open([tmp_path / "faces.zip"])
    assert len(store) == 6
    # Aligned: a face is found again in the crop, with its eyes near the template's.
    from edge.align import ARCFACE_112
    from edge.detect import find_main_face

    face = find_main_face(detector, store.image(0))
    assert face is not None
    assert np.abs(face.landmarks[:2] - ARCFACE_112[:2]).max() < 6.0
    first = (tmp_path / "faces.zip").read_bytes()
    harvest([photos], detector, tmp_path / "faces.zip")
    assert (tmp_path / "faces.zip").read_bytes() == first


@pytest.mark.realdata
def test_crops_are_cut_anew_where_a_face_is_found_and_stay_where_none_is(shared_data: Path, tmp_path: Path) -> None:
    """A crop that was shifted and turned comes back straight; names stay, and with them who is who."""
    from edge.align import ARCFACE_112
    from training.distill.realign import cut_anew, realign
    from training.faces import Finder

    detector = Finder.of(None, None).open()
    photo = cv2.imread(str(shared_data / "data" / "scenes" / "six_faces.jpg"))
    best = detector.detect(photo)[0].landmarks
    turn = cv2.getRotationMatrix2D((56.0, 56.0), 12.0, 0.9)
    turn[:, 2] += (4, -5)
    template = ARCFACE_112 @ turn[:, :2].T + turn[:, 2]
    askew = align(photo, best, template)
    again = cut_anew(askew, detector)
    assert again is not None
    straight, middle = align(photo, best).astype(int), slice(20, 92)  # around it the askew crop's edge shows
    away = [np.abs(straight - one)[middle, middle].mean() for one in (again, askew)]
    assert away[0] < 0.35 * away[1]
    for person, image in (("ada", askew), ("nobody", np.full((112, 112, 3), 90, np.uint8))):
        (tmp_path / "crops" / person).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "crops" / person / "1.png"), image)
    assert realign([tmp_path / "crops"], detector, tmp_path / "again.zip") == 1
    before, after = CropStore.open([tmp_path / "crops"]), CropStore.open([tmp_path / "again.zip"])
    assert [name.rsplit("/", 2)[-2] for name in after.names] == [name.rsplit("/", 2)[-2] for name in before.names]
    assert np.abs(after.image(1).astype(int) - 90).max() <= 2


@torch.no_grad()
def test_a_teacher_asked_both_ways_says_the_same_of_a_crop_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    teacher = Teacher()
    pixels = torch.from_numpy(np.stack([_photo(seed) for seed in range(4)])).permute(0, 3, 1, 2).float()
    measure_statistics(teacher, [pixels])
    teacher.eval()
    plain, both, mirrored = teacher(pixels), BothWays(teacher)(pixels), BothWays(teacher)(pixels.flip(3))
    torch.testing.assert_close(both.embedding, mirrored.embedding)
    assert not torch.allclose(normalize(both.embedding, dim=1), normalize(plain.embedding, dim=1), atol=1e-3)
    for name in BLOCK_NAMES:
        torch.testing.assert_close(both.blocks[name], plain.blocks[name])
