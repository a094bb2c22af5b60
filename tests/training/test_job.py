from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge.cli.main import build_parser
from edge.errors import InputError
from edge.types import Image
from training.checkpoint import load_embedder, load_head, load_head_identities, save_embedder
from training.cli import VERB
from training.faces import Finder
from training.measure import strangers_among
from training.mobilefacenet import MobileFaceNet
from training.prepare import with_activation
from training.retest import retest
from training.splits import published_split, split_of, write_tables

PEOPLE = ("ada", "ben")
PHOTOS = 8


def _crop(person: int, seed: int) -> Image:
    """Aligned "faces": each person has a gradient of his own, each photo its noise."""
    rng = np.random.default_rng([person, seed])
    ramp = np.linspace(-1, 1, 112)[:, None, None] * (1 if person == 0 else -1)
    blobs = cv2.resize(rng.normal(0, 40, (7, 7, 3)), (112, 112), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(128 + 50 * ramp + blobs, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/: two people; base.safetensors: a network with BatchNorm statistics; others.zip: crops of 30 people."""
    folder = tmp_path_factory.mktemp("inputs")
    for person, name in enumerate(PEOPLE):
        (folder / "photos" / name).mkdir(parents=True)
        for seed in range(PHOTOS):
            cv2.imwrite(str(folder / "photos" / name / f"{seed}.png"), _crop(person, seed))
    # A network that knows no faces finds all photos alike; the file says that no two are the same.
    (folder / "near_duplicate_groups.json").write_text('{"groups": []}')
    torch.manual_seed(0)
    base = MobileFaceNet(32, "relu").train()
    with torch.no_grad():
        for _ in range(20):
            base(torch.rand(4, 3, 112, 112) * 2 - 1)
    save_embedder(folder / "base.safetensors", base.eval())
    with zipfile.ZipFile(folder / "others.zip", "w") as archive:
        for person in range(60):
            crop = np.random.default_rng(person).integers(0, 256, (112, 112, 3), np.uint8)
            archive.writestr(f"p{person}/0.png", cv2.imencode(".png", crop)[1].tobytes())
    return folder


def _arguments(inputs: Path, out: Path, *more: str) -> list[str]:
    recipe = ["--epochs", "3", "--batch", "4", "--train-from", "linear", "--lr", "0.01", "--patience", "9"]
    files = ["--dataset", inputs / "photos", "--out", out, "--weights", inputs / "base.safetensors", "--aligned"]
    return ["train", *map(str, files), *recipe, *more]


def _train(inputs: Path, out: Path, *more: str) -> int:
    return VERB.run(build_parser([VERB]).parse_args(_arguments(inputs, out, *more)))


def test_a_run_writes_weights_and_a_card_that_can_be_checked(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _train(inputs, out, "--rehearsal", str(inputs / "others.zip"), "--json") == 0
    printed = capsys.readouterr()
    card = json.loads((out / "card.json").read_text())
    assert json.loads(printed.out) == card
    assert "takes at most" in printed.err

    model, info = load_embedder(out / "mobilefacenet.safetensors")
    assert model.embedding_size == 32
    assert info.metadata["dataset_sha256"] == card["data"]["sha256"]
    assert card["base"]["sha256"] == load_embedder(inputs / "base.safetensors")[1].digest
    assert load_head(out / "head.safetensors").shape == (32, 2)
    assert load_head_identities(out / "head.safetensors") == PEOPLE

    assert card["data"]["identities"] == {"ada": PHOTOS, "ben": PHOTOS}
    split = split_of(card["split"])
    assert sorted(split.train + split.valid + split.test) == sorted(
        f"{name}/{seed}.png" for name in PEOPLE for seed in range(PHOTOS)
    )
    test = card["metrics"]["closed_set_by_head"]["photos"]
    assert test["count"] == len(split.test)
    assert test["low"] <= test["value"] <= test["high"]
    assert card["hyper_parameters"]["epochs"] == 3
    assert (
        card["versions"]["torch"] == torch.__version__.split("+")[0] or card["versions"]["torch"] == torch.__version__
    )
    assert str(tmp_path) not in json.dumps(card)

    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["loss"] == ""
    assert float(rows[3]["rehearse"]) > 0
    predictions = list(csv.DictReader((out / "predictions.csv").open()))
    assert [row["photo"] for row in predictions] == list(split.test)
    assert sum(int(row["right"]) for row in predictions) == test["hits"]
    assert cv2.imread(str(out / "curves.png")) is not None


def test_the_same_seed_gives_the_same_weights(inputs: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        _train(inputs, tmp_path / name, "--seed", seed, "--epochs", "1")
    for file in ("mobilefacenet.safetensors", "head.safetensors", "history.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "history.csv").read_bytes() != (tmp_path / "c" / "history.csv").read_bytes()


@pytest.mark.slow
def test_killed_and_resumed_is_as_if_never_killed(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; from edge.cli.main import build_parser; from training.cli import VERB; "
    code += "sys.exit(VERB.run(build_parser([VERB]).parse_args()))"
    more = ("--epochs", "5", "--patience", "99", "--train-from", "conv_5")
    command = [sys.executable, "-c", code, *_arguments(inputs, tmp_path / "killed", *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    history = tmp_path / "killed" / "history.csv"
    until = time.monotonic() + 120
    while not (history.is_file() and len(history.read_text().splitlines()) > 2):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "mobilefacenet.safetensors").exists()
    assert _train(inputs, tmp_path / "killed", *more, "--resume") == 0
    assert "goes on after epoch" in capsys.readouterr().err
    assert _train(inputs, tmp_path / "whole", *more) == 0
    for name in ("mobilefacenet.safetensors", "head.safetensors", "history.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_resuming_with_other_data_is_refused(inputs: Path, tmp_path: Path) -> None:
    _train(inputs, tmp_path, "--epochs", "1")
    with pytest.raises(InputError, match="other values of epochs"):
        _train(inputs, tmp_path, "--epochs", "2", "--resume")
    with pytest.raises(InputError, match=r"other values of .*rehearsal"):
        _train(inputs, tmp_path, "--epochs", "1", "--resume", "--rehearsal", str(inputs / "others.zip"))


def test_prelu_with_slope_zero_is_the_relu_network(inputs: Path, tmp_path: Path) -> None:
    base, _ = load_embedder(inputs / "base.safetensors")
    prelu = with_activation(base, "prelu")
    x = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(prelu(x), base(x), atol=1e-6)
    with pytest.raises(InputError, match="another function"):
        with_activation(prelu, "relu")
    _train(inputs, tmp_path, "--activation", "prelu", "--epochs", "1")
    assert load_embedder(tmp_path / "mobilefacenet.safetensors")[1].activation == "prelu"


def test_wrong_arguments_are_one_line(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for more, match in (
        (("--split", "published"), "no folder seed_split"),
        (("--split", str(tmp_path / "none.json")), "none.json: cannot be read"),
        (("--batch", "1"), "2 photos or more"),
        (("--rehearsal", str(inputs / "base.safetensors")), "neither a folder nor a zip"),
        (("--pairs", "pairs.txt"), "go together"),
        (("--pairs", "pairs.txt", "--images", "photos"), "--pairs pairs.txt: no such file or folder"),
        (("--strangers", "nobody"), "--strangers nobody: no such file or folder"),
        (("--margin", "-1"), "a margin lies in"),
        (("--out", __file__), "is a file; --out names a folder"),
        (("--strangers", str(tmp_path / "empty")), "empty: no picture in this folder"),
        (("--pairs", __file__, "--images", str(inputs)), "test_job.py"),
        (("--strangers", str(inputs / "photos")), "name the --detector"),
    ):
        with pytest.raises(InputError, match=match):
            _train(inputs, tmp_path / "out", *more)
        assert not (tmp_path / "out" / "resume.pt").exists(), f"it learned before it said {match}"
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            _train(inputs, tmp_path / "out", "--device", "cuda")
    with pytest.raises(InputError, match="--dataset"):
        VERB.run(build_parser([VERB]).parse_args(["train"]))


def test_known_people_are_no_strangers() -> None:
    pictures = [Path("lfw") / name for name in ("Ada/Ada_0001.jpg", "Adam/Adam_0001.jpg", "Ben_Li/1.jpg")]
    assert strangers_among(pictures, PEOPLE) == pictures[1:]


def test_a_photo_of_another_size_is_no_aligned_crop(inputs: Path, tmp_path: Path) -> None:
    for name in PEOPLE:
        (tmp_path / "set" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / name / "a.png"), np.zeros((112, 100, 3), np.uint8))
    with pytest.raises(InputError, match="100×112"):
        _train(inputs, tmp_path / "out", "--dataset", str(tmp_path / "set"))


@pytest.mark.realdata
def test_a_model_folder_is_tested_again_by_the_tables(inputs: Path, shared_data: Path, tmp_path: Path) -> None:
    """The original pipeline's test: photos of three people, detected and aligned, its tables, its file names."""
    source = shared_data / "data/avengers/cropped_images"
    people = ("chris_evans", "mark_ruffalo", "scarlett_johansson")
    for name in people:
        (tmp_path / "set" / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:4]:
            (tmp_path / "set" / name / path.name).symlink_to(path)
    from training.data import read_dataset
    from training.splits import group_split

    dataset = read_dataset(tmp_path / "set")
    split = group_split(dataset, tuple((photo.path,) for photo in dataset.photos), 0, (0.5, 0.0, 0.5))
    write_tables(split, tmp_path / "tables")
    assert published_split(tmp_path / "tables", dataset).test == split.test
    model = tmp_path / "model"
    model.mkdir()
    torch.save(load_embedder(inputs / "base.safetensors")[0].state_dict(), model / "model_2020_final.path")
    detector = Finder(shared_data / "models/yunet_s_dynamic.onnx")
    report = retest(tmp_path / "set", model, tmp_path / "tables", detector)
    assert f"of {len(split.test)})" in report
    assert "nearest mean" in report
    rows = list(csv.DictReader((model / "predictions.csv").open()))
    assert [row["photo"] for row in rows] == list(split.test)
    assert {row["predicted"] for row in rows} <= set(people)
    torch.save({"kernel": torch.randn(32, 3)}, model / "head_2020_final.path")
    assert "by the head" in retest(tmp_path / "set", model, tmp_path / "tables", detector)
    torch.save({"kernel": torch.randn(32, 7)}, model / "head_2020_final.path")
    with pytest.raises(InputError, match="knows 7 people"):
        retest(tmp_path / "set", model, tmp_path / "tables", detector)
    with pytest.raises(InputError, match="holds none of"):
        retest(tmp_path / "set", tmp_path / "set", tmp_path / "tables", detector)
