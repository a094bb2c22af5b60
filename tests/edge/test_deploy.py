"""The files people copy: what they start has to be a command line this version takes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from images import extras, options, requirements

from edge.cli.main import build_parser, find_verbs

EXTRA_OF = {
    "--serve": "live",
    "--mqtt": "mqtt",
    "--nats": "nats",
    "--key-file": "crypto",
    "--require-signed": "sign",
}
"""Options that need more than the runtime, and the extra each needs."""


def options_of(arguments: list[str]) -> dict[str, object]:
    return vars(build_parser(find_verbs()).parse_args(arguments))


def test_the_systemd_unit_starts_a_run(repository: Path) -> None:
    text = (repository / "deploy" / "edge-run.service").read_text()
    command = next(line for line in text.replace("\\\n", " ").splitlines() if line.startswith("ExecStart="))
    program, *arguments = shlex.split(command.partition("=")[2])
    assert Path(program).name == "edge"
    options = options_of(arguments)
    assert options["source"] == ["door=/dev/video0", "yard=rtsp://camera.local/stream"]
    assert str(options["events"]).startswith("/var/lib/arcedge/")
    assert "Restart=always" in text


def test_the_unit_can_be_opened_to_a_gpu_as_it_says(repository: Path) -> None:
    """ProtectClock, before systemd 253 as on JetPack 6, closes all devices that DeviceAllow does not name."""
    text = (repository / "deploy" / "edge-run.service").read_text()
    devices = re.search(
        r"^DevicePolicy=closed\nDeviceAllow=.*\n# On a Jetson.*\n(?:#.*\n)*MemoryMax", text, re.MULTILINE
    )
    assert devices is not None, "the two lines above, the one below"
    assert re.search(r"^(ProtectClock|PrivateDevices|RootImage)=", text, re.MULTILINE) is None


@pytest.mark.parametrize("name", ["edge-run.service", "edge-rollout.service"])
def test_a_unit_has_a_folder_for_engines_and_measurements(repository: Path, name: str) -> None:
    """Its user has no home: --engine auto and tensorrt would end with exit code 2."""
    text = (repository / "deploy" / name).read_text()
    assert re.search(r"^CacheDirectory=arcedge$", text, re.MULTILINE)
    assert re.search(r"^Environment=.* ARCEDGE_CACHE=/var/cache/arcedge$", text, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(repository: Path, tmp_path: Path) -> None:
    # The program is not installed where the unit will find it on a device.
    program = tmp_path / "edge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "edge-run.service"
    unit.write_text((repository / "deploy" / unit.name).read_text().replace("/opt/arcedge/bin/edge", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_compose_file_starts_a_run(repository: Path) -> None:
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((repository / "deploy" / "compose.yaml").read_text())["services"]["edge"]
    options = options_of(service["command"])
    assert options["source"] == ["door=0", "yard=rtsp://camera.local/stream"]
    assert str(options["events"]).startswith(service["volumes"][0].partition(":")[2])
    assert options["serve"] == "8080", "what the image's HEALTHCHECK asks"
    assert "healthcheck" not in service, "the image has one"
    assert (service["restart"], service["stop_signal"]) == ("unless-stopped", "SIGTERM")


def test_the_image_of_the_compose_file_has_what_its_options_need(repository: Path) -> None:
    """Those it proposes in comments too: whoever takes the # away would have a container that starts for ever."""
    named = options(repository / "deploy" / "compose.yaml")
    assert "--mqtt" in named, "proposed in a comment"
    for option in named & EXTRA_OF.keys():
        assert set(extras(repository)[EXTRA_OF[option]]) <= requirements(repository, "cpu"), option


@pytest.mark.parametrize("name", ["edge-run.service", "edge-rollout.service"])
def test_a_unit_says_how_to_install_what_its_options_need(repository: Path, name: str) -> None:
    unit = repository / "deploy" / name
    installed = re.search(r"^#.*pip install '\.\[([\w,]+)\]'", unit.read_text(encoding="utf-8"), re.MULTILINE)
    assert installed is not None
    for option in options(unit) & EXTRA_OF.keys():
        assert EXTRA_OF[option] in installed[1].split(","), option
