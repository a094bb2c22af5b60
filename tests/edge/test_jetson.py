"""A Jetson's own files, as Jetson Linux lays them out, in a made-up root."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.jetson import Clock, Jetson, find_jetson


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write(
        tmp_path,
        "etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    )
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    for file, value in (("cur_freq", 306000000), ("min_freq", 306000000), ("max_freq", 1020000000)):
        write(tmp_path, f"sys/class/devfreq/17000000.gpu/{file}", f"{value}\n")
        write(tmp_path, f"sys/class/devfreq/15340000.vic/{file}", "1\n")
    for core, now in ((0, 1510400), (1, 729600)):
        for file, value in (("cur", now), ("min", 729600), ("max", 1728000)):
            write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_{file}_freq", f"{value}\n")
    return tmp_path


def test_board_jetpack_and_clocks(orin: Path) -> None:
    assert find_jetson(orin) == Jetson(
        "NVIDIA Jetson Orin Nano Developer Kit",
        "36.4.3",
        None,
        (Clock("GPU", 306.0, 306.0, 1020.0), Clock("CPU", pytest.approx(729.6), pytest.approx(729.6), 1728.0)),  # type: ignore[arg-type]
    )
    found = find_jetson(orin)
    assert found is not None
    assert found.jetpack == "6.2"
    assert not any(clock.held for clock in found.clocks)


def test_clocks_that_jetson_clocks_holds(orin: Path) -> None:
    write(orin, "sys/class/devfreq/17000000.gpu/min_freq", "1020000000")
    for core in (0, 1):
        write(orin, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_min_freq", "1728000")
    found = find_jetson(orin)
    assert found is not None
    assert all(clock.held for clock in found.clocks)


def test_the_clock_of_a_thors_gpu_is_that_of_its_processors(tmp_path: Path) -> None:
    """Its driver shows two, of which the other is that of the video engines."""
    write(tmp_path, "etc/nv_tegra_release", "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic\n")
    for node, most in (("gpu-gpc-0", 1575000000), ("gpu-nvd-0", 1692000000)):
        for file, value in (("cur_freq", 315000000), ("min_freq", 315000000), ("max_freq", most)):
            write(tmp_path, f"sys/class/devfreq/{node}/{file}", f"{value}\n")
    found = find_jetson(tmp_path)
    assert found is not None
    assert (found.jetpack, found.clocks) == ("7.0", (Clock("GPU", 315.0, 315.0, 1575.0),))


def test_the_power_mode_of_nvpmodel_and_of_its_files(orin: Path) -> None:
    write(orin, "var/lib/nvpmodel/status", "pmode:0002 fmode:fanNull\n")
    found = find_jetson(orin)
    assert found is not None
    assert found.power_mode == "number 2"
    write(orin, "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\nCPU 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n")
    found = find_jetson(orin)
    assert found is not None
    assert found.power_mode == "MAXN_SUPER"
    write(orin, "bin/nvpmodel", "\x7fELF of another machine")
    (orin / "bin/nvpmodel").chmod(0o755)
    found = find_jetson(orin)
    assert found is not None
    assert found.power_mode == "MAXN_SUPER", "where the program cannot be run its files tell"
    write(orin, "bin/nvpmodel", "#!/bin/sh\necho 'NV Power Mode: 25W'\necho 1\n")
    found = find_jetson(orin)
    assert found is not None
    assert found.power_mode == "25W"


@pytest.mark.parametrize(
    ("release", "jetpack"),
    [
        ("32.7.1", "4 or older"),
        ("35.4.1", "5.1.2"),
        ("36.3.0", "6.0"),
        ("36.4.0", "6.1"),
        ("36.4.4", "6.2.1"),
        ("36.4.30", "6"),
        ("36.9.9", "6"),
        ("38.2.1", "7.0"),
        ("39.1.0", "7 or newer"),
        (None, None),
    ],
)
def test_jetpack_by_release(release: str | None, jetpack: str | None) -> None:
    assert Jetson("board", release, None, ()).jetpack == jetpack


def test_a_container_sees_the_board_without_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    write(tmp_path, "sys/devices/soc0/family", "Tegra\n")
    write(tmp_path, "sys/devices/soc0/machine", "NVIDIA Jetson AGX Thor\n")
    assert find_jetson(tmp_path) == Jetson("NVIDIA Jetson AGX Thor", None, None, ())


def test_another_machine_is_none(tmp_path: Path) -> None:
    assert find_jetson(tmp_path) is None
    write(tmp_path, "sys/devices/soc0/family", "i.MX\n")
    write(tmp_path, "sys/class/devfreq/gpu/cur_freq", "1")
    assert find_jetson(tmp_path) is None
