"""The units people copy: what they start has to be a command line this version takes, and they have to fit together."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.cli.main import build_parser, find_verbs

UNITS = ("edge-rollout.service", "edge-rollout.timer", "edge-run-restart.path", "edge-run-restart.service")


def unit(file: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(file.read_text().replace("\\\n", " "))
    return parser


def options_of(command: str) -> dict[str, object]:
    program, *arguments = shlex.split(command)
    assert Path(program).name == "edge"
    return vars(build_parser(find_verbs()).parse_args(arguments))


def test_the_units_install_check_and_restart_one_store(repository: Path) -> None:
    deploy = repository / "deploy"
    install = options_of(unit(deploy / "edge-rollout.service")["Service"]["ExecStart"])
    check = options_of(unit(deploy / "edge-run-rollout.conf")["Service"]["ExecStartPre"])
    assert (install["action"], check["action"]) == ("install", "check")
    assert install["store"] == check["store"]
    assert install["require_signed"] == check["require_signed"]
    watched = unit(deploy / "edge-run-restart.path")["Path"]
    assert Path(watched["PathChanged"]) == Path(str(install["store"])) / "switched"
    assert (deploy / watched["Unit"]).is_file()
    run = options_of(unit(deploy / "edge-run.service")["Service"]["ExecStart"])
    assert install["gallery"] == run["gallery"]
    told = (deploy / "edge-rollout.service").read_text()
    assert f"ln -s bundles/current {run['bundle']}" in told
    assert Path(str(run["bundle"])).parent == Path(str(install["store"])).parent


def test_a_fleet_does_not_ask_all_at_once(repository: Path) -> None:
    timer = unit(repository / "deploy" / "edge-rollout.timer")["Timer"]
    assert timer["RandomizedDelaySec"] == timer["OnUnitActiveSec"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_units(repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "edge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    files = []
    for name in (*UNITS, "edge-run.service"):
        files.append(tmp_path / name)
        files[-1].write_text((repository / "deploy" / name).read_text().replace("/opt/arcedge/bin/edge", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", *map(str, files)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
