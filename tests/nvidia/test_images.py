"""The container images: what their files promise, and that a Jetson can install what they ask for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from images import IMAGES, extras, instructions, requirements, stage

from edge.cli.main import build_parser, find_verbs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = ("Dockerfile", "Dockerfile.jetson")


@pytest.mark.parametrize("name", FILES)
def test_the_last_stage_runs_as_nobody_special_and_says_how_it_is(repository: Path, name: str) -> None:
    steps = instructions(repository / name)
    last = [step for step, _ in steps][::-1].index("FROM")
    final = dict(steps[len(steps) - last :])
    assert final["USER"] == "2015", "a number, which every host can resolve"
    assert "CMD" in final["HEALTHCHECK"]
    assert final["ENTRYPOINT"] == '["edge"]'
    assert not any(step == "ADD" for step, _ in steps)


@pytest.mark.parametrize("image", IMAGES)
def test_the_user_of_an_image_can_write_to_the_cache(repository: Path, image: str) -> None:
    """A volume, which deploy/compose.yaml's read-only file system leaves writable: --engine auto ends without one."""
    steps = stage(repository, image)
    assert ("VOLUME", "/var/cache/arcedge") in steps
    assert any(step == "ENV" and "ARCEDGE_CACHE=/var/cache/arcedge" in rest.split() for step, rest in steps)
    assert any("install -d -o arcedge -g arcedge -m 700 /var/cache/arcedge" in rest for _, rest in steps)


def test_a_jetson_gets_neither_tensorrt_nor_opencv_from_pip(repository: Path) -> None:
    steps = instructions(repository / "Dockerfile.jetson")
    installs = " ".join(rest for step, rest in steps if step == "RUN" and "pip install" in rest)
    assert "tensorrt" not in installs
    assert "opencv" not in installs
    assert "--no-deps ." in installs, "arcedge's own requirements name PyPI's OpenCV"
    assert any("python3-opencv" in rest for _, rest in steps)


def test_a_jetson_gets_everything_that_arcedge_needs(repository: Path) -> None:
    """It is installed without its requirements there: what is new has to be in the image too. OpenCV is Ubuntu's."""
    with (repository / "pyproject.toml").open("rb") as file:
        needed = {name_of(requirement) for requirement in tomllib.load(file)["project"]["dependencies"]}
    assert "opencv-python-headless" in needed
    asked = {name_of(requirement) for requirement in requirements(repository, "jetson")}
    assert asked >= needed - {"opencv-python-headless"}


def test_a_jetsons_pip_is_one_that_can_build_arcedge(repository: Path) -> None:
    """Played on Ubuntu 22.04: its pip 22.0 has the system's setuptools 59 build, and installs UNKNOWN-0.0.0 instead."""
    installs = [
        command
        for step, rest in instructions(repository / "Dockerfile.jetson")
        for command in re.findall(r"pip install (.*?)(?:&&|$)", rest)
        if step == "RUN"
    ]
    assert "--upgrade 'pip>=24'" in installs[0]
    assert any(command.split()[-1] == "." for command in installs[1:])
    assert all("--ignore-installed" in each or "--no-deps ." in each for each in installs[1:]), (
        "copied to another system"
    )
    assert ("RUN", "edge --version") in instructions(repository / "Dockerfile.jetson")


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found is not None
    return found.group()


def test_every_command_for_a_jetson_gives_the_render_group(repository: Path) -> None:
    """Whose number is the host's own: the image cannot put its user into it. What is mounted is the image's user's."""
    text = (repository / "docs" / "nvidia.md").read_text(encoding="utf-8").replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith("    docker run ")]
    assert len(commands) >= 5
    for line in commands:
        assert '--group-add "$(stat -c %g /dev/dri/renderD128)"' in line, line
        assert ":/data" not in line or '-v "$PWD/data":/data' in line, line
        words = re.split(r" arcedge(?:-bench)? ", line)[1].split()
        build_parser(find_verbs(words[0])).parse_args(words)
    assert "sudo chown -R 2015 data" in text


@pytest.mark.parametrize("name", FILES)
def test_everything_copied_is_there_and_not_ignored(repository: Path, name: str) -> None:
    admitted = {
        line[1:] for line in (repository / ".dockerignore").read_text(encoding="utf-8").split() if line[0] == "!"
    }
    for step, rest in instructions(repository / name):
        if step == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert source in admitted
                assert (repository / source).exists() or source == "README.md"


@pytest.mark.parametrize("name", FILES)
def test_hadolint_has_nothing_to_say(repository: Path, name: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    linter = shutil.which("hadolint") or (str(beside) if beside.exists() else None)
    if linter is None:
        pytest.skip("needs hadolint")
    done = subprocess.run([linter, str(repository / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("extra", ["live", "mqtt", "nats", "crypto", "sign"])
def test_an_image_has_what_a_camera_and_its_gallery_may_ask_for(repository: Path, image: str, extra: str) -> None:
    """A container cannot be told to install it: it would start and end with exit code 2 for ever."""
    assert set(extras(repository)[extra]) <= requirements(repository, image)


@pytest.mark.parametrize("image", IMAGES)
def test_no_image_has_what_trains_and_exports(repository: Path, image: str) -> None:
    names = {re.split(r"[^\w-]", wanted)[0] for wanted in requirements(repository, image)}
    assert names.isdisjoint({"torch", "onnx", "onnxscript", "scipy", "matplotlib", "ray", "pymilvus"})


@pytest.mark.slow
@pytest.mark.parametrize(("jetpack", "python", "cuda"), [("6", "3.10", "12.6,<13"), ("7", "3.12", "13,<14")])
def test_a_jetson_finds_a_wheel_for_every_requirement(
    repository: Path, tmp_path: Path, jetpack: str, python: str, cuda: str
) -> None:
    """Wheels for aarch64 and the image's Python exist; nothing is downloaded but their metadata."""
    steps = instructions(repository / "Dockerfile.jetson")
    line = next(rest for step, rest in steps if step == "RUN" and "onnxruntime" in rest)
    assert f"cuda-bindings>={cuda}" in line, f"JetPack {jetpack}"
    wanted = [*sorted(requirements(repository, "jetson")), f"cuda-bindings>={cuda}"]
    found = resolved_for_aarch64(wanted, python, glibc=35 if jetpack == "6" else 39, out=tmp_path)
    assert "numpy-1." in found


@pytest.mark.slow
def test_a_raspberry_pi_finds_a_wheel_for_every_requirement_of_the_cpus_image(repository: Path, tmp_path: Path) -> None:
    with (repository / "pyproject.toml").open("rb") as file:
        needed = set(tomllib.load(file)["project"]["dependencies"])
    resolved_for_aarch64([*sorted(needed | requirements(repository, "cpu"))], "3.12", glibc=36, out=tmp_path)


def resolved_for_aarch64(wanted: list[str], python: str, glibc: int, out: Path) -> str:
    """What pip would install, each of `wanted` among it; skips without a package index. glibc: the 36 of 2.36."""
    # Markers are read for the Python that asks, not for the one that is asked for.
    asked = [each.partition(";")[0] for each in wanted]
    tag = python.replace(".", "")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", tag]
    for abi in (f"cp{tag}", "abi3", "none"):
        command += ["--abi", abi]
    for minor in range(17, glibc + 1):
        command += ["--platform", f"manylinux_2_{minor}_aarch64"]
    command += ["--platform", "manylinux2014_aarch64", "--platform", "any", "--target", str(out / "none")]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
    if re.search(r"NewConnectionError|Temporary failure|ConnectTimeout|Retrying", done.stderr):
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    found = re.search(r"Would install (.*)", done.stdout)
    assert found is not None
    text = found.group(1).replace("_", "-")
    for package in ("numpy-", "onnxruntime-1.", *(f"{name_of(each)}-" for each in asked)):
        assert package in text, text
    return text
