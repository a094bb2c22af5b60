"""Readers on a made-up /sys tree, and meters on made-up sources whose joules are known."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from clock import Clock

from benchmarks.energy import CounterMeter, PowerMeter, find_meters
from benchmarks.energy.base import Meter
from benchmarks.energy.jetson import find_rails
from benchmarks.energy.measure import measure_energy
from benchmarks.energy.nvml import find_gpus
from benchmarks.energy.rapl import find_zones


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return path


def zone(root: Path, folder: str, name: str, joules: float) -> Path:
    write(root / folder / "name", name)
    write(root / folder / "max_energy_range_uj", "262143328850")
    return write(root / folder / "energy_uj", str(round(joules * 1e6)))


def assert_measures(meter: Meter, watts: float) -> None:
    """What it counts of a load that never changes lies between what the time inside and around its calls makes."""
    before = time.monotonic()
    meter.start()
    inside = time.monotonic()
    time.sleep(0.1)
    least = watts * (time.monotonic() - inside)
    joules = meter.stop()
    assert least - 0.002 <= joules <= watts * (time.monotonic() - before) + 0.002, "to the millijoules of NVML"


def test_rapl_counts_packages_and_not_their_parts_twice(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1000.0)
    zone(tmp_path, "intel-rapl:1", "package-1", 5.0)
    zone(tmp_path, "intel-rapl:0:0", "core", 700.0)
    meters, reason = find_zones(tmp_path)
    assert reason is None
    assert [meter.name for meter in meters] == ["RAPL package-0", "RAPL package-1"]
    meters[0].start()
    counter.write_text(str(round(1012.5e6)))
    assert meters[0].stop() == pytest.approx(12.5)
    assert meters[1].name.endswith("1")


def test_rapl_that_wraps_around_goes_on_counting(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 262143.0)
    (meter,), _ = find_zones(tmp_path)
    meter.start()
    counter.write_text("3000000")
    assert meter.stop() == pytest.approx(3.0 + 0.32885, abs=1e-3)


def test_a_machine_without_meters_says_why(tmp_path: Path) -> None:
    assert find_zones(tmp_path) == ([], "RAPL: this machine shows no counter (virtual machines hide them)")
    assert find_rails(tmp_path)[1] == "Jetson: no INA3221 power sensor"
    (tmp_path / "intel-rapl:0").mkdir()  # a zone without files is passed over
    assert find_zones(tmp_path)[0] == []
    meters, missing = find_meters()
    assert len(meters) + len(missing) >= 3 or meters


def test_a_counter_only_root_may_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1.0)
    read = Path.read_text

    def refuse(self: Path, *args: object, **kwargs: object) -> str:
        if self == counter:
            raise PermissionError(13, "Permission denied")
        return read(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)  # the tests may run as root, who may read everything
    meters, reason = find_zones(tmp_path)
    assert meters == []
    assert reason == "RAPL: intel-rapl:0/energy_uj can be read by root alone; allow it with chmod o+r, or run as root"


def ina3221(folder: Path, *rails: tuple[str, int, int]) -> None:
    """Rails by name, millivolts and milliamperes, and the label of a sum that has no reading."""
    for number, (rail, millivolts, milliamperes) in enumerate(rails, start=1):
        write(folder / f"in{number}_label", rail)
        write(folder / f"in{number}_input", str(millivolts))
        write(folder / f"curr{number}_input", str(milliamperes))
    write(folder / "in7_label", "sum of shunt voltages")


def test_a_jetsons_whole_board_is_metered_once(tmp_path: Path) -> None:
    rails = ("VDD_IN", 5000, 1500), ("VDD_CPU_GPU_CV", 5000, 600), ("VDD_SOC", 5000, 300)
    ina3221(tmp_path / "ina3221" / "1-0040" / "hwmon" / "hwmon3", *rails)
    meters, reason = find_rails(tmp_path)
    assert reason is None
    assert [meter.name for meter in meters] == ["INA3221 VDD_IN"]
    assert_measures(meters[0], 7.5)


def test_the_five_volts_of_an_agx_orin_are_not_the_whole(tmp_path: Path) -> None:
    """They feed neither GPU nor CPU, which would be left out of every joule."""
    rails = ("VDD_GPU_SOC", 19000, 1200), ("VDD_CPU_CV", 19000, 400), ("VIN_SYS_5V0", 5000, 900)
    ina3221(tmp_path / "ina3221" / "1-0040" / "hwmon" / "hwmon3", *rails)
    ina3221(tmp_path / "ina3221" / "1-0041" / "hwmon" / "hwmon4", ("VDDQ_VDD2_1V8AO", 5000, 100))
    meters, _ = find_rails(tmp_path)
    expected = ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    assert [meter.name for meter in meters] == [f"INA3221 {rail}" for rail in expected]
    assert_measures(meters[0], 22.8)


def test_the_input_of_a_thor_has_a_chip_of_its_own(tmp_path: Path) -> None:
    rails = ("VDD_GPU", 20000, 1200), ("VDD_CPU_SOC_MSS", 20000, 300), ("VIN_SYS_5V0", 5000, 900)
    ina3221(tmp_path / "ina3221" / "2-0040" / "hwmon" / "hwmon2", *rails)
    write(tmp_path / "ina238" / "2-0044" / "hwmon" / "hwmon3" / "power1_input", "42000000")
    meters, _ = find_rails(tmp_path)
    assert [meter.name for meter in meters] == ["INA238 VIN"]
    assert_measures(meters[0], 42.0)


def test_an_old_jetsons_rails_are_all_metered_where_none_is_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / "ina3221x" / "6-0040" / "iio:device0"
    for number, (rail, milliwatts) in enumerate([("POM_5V_CPU", 900), ("POM_5V_GPU", 400)]):
        write(folder / f"rail_name_{number}", rail)
        write(folder / f"in_power{number}_input", str(milliwatts))
    meters, _ = find_rails(tmp_path)
    assert [meter.name for meter in meters] == ["INA3221 POM_5V_CPU", "INA3221 POM_5V_GPU"]


class Nvml:
    """What nvidia-ml-py offers, of a GPU that draws 30 W; `counter`: whether it counts energy itself."""

    class NVMLError(Exception):
        pass

    def __init__(self, counter: bool, gpus: int = 1, power: bool = True) -> None:
        self.counter, self.gpus, self.power, self.begun = counter, gpus, power, time.monotonic()

    def nvmlInit(self) -> None:  # noqa: N802
        if self.gpus < 0:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, i: int) -> int:  # noqa: N802
        return i

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "Abacus GPU"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if not self.counter:
            raise self.NVMLError("Not Supported")
        return round(30_000 * (time.monotonic() - self.begun))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if not self.power:
            raise self.NVMLError("Not Supported")
        return 30_000


@pytest.mark.parametrize("counter", [True, False])
def test_nvml_counts_energy_or_sums_power(counter: bool) -> None:
    (meter,), reason = find_gpus(Nvml(counter))
    assert reason is None
    assert isinstance(meter, CounterMeter if counter else PowerMeter)
    assert meter.name == "NVML Abacus GPU"
    assert_measures(meter, 30.0)


def test_nvml_without_a_gpu_or_a_driver_says_so() -> None:
    assert find_gpus(Nvml(True, gpus=0)) == ([], "NVML: no NVIDIA GPU")
    assert find_gpus(Nvml(True, gpus=-1)) == ([], "NVML: Driver Not Loaded")


def test_a_gpu_that_tells_neither_energy_nor_power_is_no_meter() -> None:
    """As a Jetson's may: it ended the measurement, where the board's own sensors could have been read."""
    said = "NVML: GPU 0 tells neither energy nor power (Not Supported)"
    assert find_gpus(Nvml(counter=False, power=False)) == ([], said)


def test_power_that_changes_is_summed_by_trapezoids() -> None:
    others = threading.active_count()
    begun = time.monotonic()
    read: list[float] = []

    def ramp() -> float:
        read.append(time.monotonic() - begun)
        return 100.0 * read[-1]

    meter = PowerMeter("ramp", ramp, every=0.005)
    meter.start()
    time.sleep(0.3)
    joules = meter.stop()
    assert len(read) > 2
    assert joules == pytest.approx(50.0 * (read[-1] ** 2 - read[0] ** 2), rel=0.05)
    assert threading.active_count() == others, "nobody samples any more"


def test_joules_of_a_frame_are_told_apart_from_what_the_idle_machine_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up machine that draws 10 W and 2 J a frame, and one variant that takes a quarter of it."""
    clock = Clock()
    monkeypatch.setattr("benchmarks.energy.measure.time", clock)
    used = {"frames": 0.0}

    def work(joules: float, seconds: float):
        def frame(_: int) -> None:
            used["frames"] += joules
            clock.sleep(seconds)

        return frame

    meter = CounterMeter("made-up", lambda: 10.0 * clock.monotonic() + used["frames"])
    frames = {"FP32": work(2.0, 0.004), "INT8": work(0.5, 0.001)}
    figures = measure_energy(frames, [meter], ["NVML: none"], blocks=4, seconds=0.08)
    assert figures["measured"]
    assert figures["meters"][0]["idle_watts"] == pytest.approx(10.0)
    (full,), (quarter,) = figures["variants"]["FP32"], figures["variants"]["INT8"]
    assert full["above_idle"]["value"] == pytest.approx(2.0)
    assert quarter["above_idle"]["value"] == pytest.approx(0.5)
    assert full["joules_a_frame"]["value"] > full["above_idle"]["value"]


def test_without_a_meter_energy_is_not_measured() -> None:
    figures = measure_energy({"FP32": lambda i: None}, [], ["RAPL: hidden", "NVML: no NVIDIA GPU"])
    assert figures["variants"] == {}
    assert figures["reason"] == "not measured: RAPL: hidden; NVML: no NVIDIA GPU"
