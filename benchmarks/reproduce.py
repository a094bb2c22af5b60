"""The kept results, from the shipped weights to README, by one command: `python -m benchmarks.reproduce`.

It exports two bundles (our weights; foamliu's embedder with YuNet-n, which the peers run too), measures each beside the
peers, keeps both results, and writes docs/results.md and README's tables anew. It takes about an hour on two cores. The
first minutes of each run are the timed ones: they want an idle machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import publish, readme
from benchmarks.command import command
from edge.errors import InputError
from edge.weights.registry import find_entry

FOAMLIU = "mobilefacenet-foamliu-128-onnx"


@dataclass(frozen=True, slots=True)
class Shared:
    """The folder of CONTRIBUTING.md's table, and what the runs take of it."""

    folder: Path

    def __post_init__(self) -> None:
        for path in (self.lfw / "pairs.txt", self.faces / "labels.txt", self.video, self.models):
            if not path.exists():
                raise InputError(f"{path}: missing; CONTRIBUTING.md says what the folder of real data holds")

    @property
    def lfw(self) -> Path:
        """Images and pairs."""
        return self.folder / "data" / "lfw"

    @property
    def faces(self) -> Path:
        """Pictures with true boxes."""
        return self.folder / "data" / "wider" / "eval"

    @property
    def video(self) -> Path:
        """A street, 1080p, three to seven faces a frame."""
        return self.folder / "data" / "video" / "street_1080p.mp4"

    @property
    def photos(self) -> Path:
        """What a third party's INT8 is calibrated on."""
        return self.folder / "data" / "avengers" / "cropped_images"

    @property
    def models(self) -> Path:
        """The peers' files."""
        return self.folder / "models"


def export_own(out: Path) -> list[str]:
    """Arguments of `edge export` for the weights that ship."""
    return ["export", "--weights", "mobilefacenet-512", "--out", str(out)]


def export_foamliu(out: Path, shared: Shared) -> list[str]:
    """Arguments for the peers' own embedder; its contract is the registry's."""
    entry = find_entry(FOAMLIU)
    assert entry.contract is not None  # it is an embedder
    contract = out.with_suffix(".toml")
    contract.write_text(
        "\n".join(f"{key} = {_toml(value)}" for key, value in entry.contract.to_dict().items() if value is not None)
        + "\n",
        encoding="utf-8",
    )
    models = ["--onnx", str(shared.models / entry.file), "--contract", str(contract)]
    detector = ["--detector", str(shared.models / "yunet_n_dynamic.onnx"), "--calibration", str(shared.photos)]
    return ["export", *models, *detector, "--out", str(out)]


def bench(bundle: Path, out: Path, shared: Shared, seconds: float, peers: str) -> list[str]:
    """Arguments of `edge bench`: everything it can measure."""
    pictures = ["--pairs", shared.lfw / "pairs.txt", "--images", shared.lfw / "images"]
    people = ["--identities", shared.lfw / "images", "--faces", shared.faces]
    frames = ["--landmarks", shared.models / "scrfd_2.5g.onnx", "--video", shared.video, "--height", 720]
    beside = ["--peer", peers, "--peer-models", shared.models, "--not-in", shared.photos]
    how = ["--engine", "all", "--seconds", seconds, "--out", out]
    return ["bench", "--bundle", str(bundle), *map(str, [*pictures, *people, *frames, *beside, *how])]


def reproduce(shared: Shared, build: Path, seconds: float, peers: str) -> None:
    """Every step. Raises InputError where one fails; its own words were printed."""
    build.mkdir(parents=True, exist_ok=True)
    own, foamliu = build / "arcedge.bundle", build / "foamliu.bundle"
    for bundle, arguments, name in (
        (own, export_own(own), readme.RESULT),
        (foamliu, export_foamliu(foamliu, shared), "foamliu-yunet-n"),
    ):
        _edge(arguments)
        _edge(bench(bundle, build / name, shared, seconds, peers))
        print(publish.publish(build / name / "report.json", name).name)
    readme.write_readme()


def _edge(arguments: list[str]) -> None:
    print("edge", *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", "edge", *arguments], check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise InputError(f"edge {arguments[0]} ended with {done.returncode}; nothing after it was done")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


@command("reproduce")
def main(arguments: list[str] | None = None) -> int:
    """`python -m benchmarks.reproduce`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared"), help="folder of real data (default: %(default)s)"
    )
    parser.add_argument("--build", type=Path, default=Path("build/results"), help="bundles and reports go there")
    parser.add_argument("--seconds", type=float, default=55.0, help="of each timed part (default: %(default)s)")
    parser.add_argument("--peer", default="all", help="peers to measure (default: %(default)s)")
    options = parser.parse_args(arguments)
    reproduce(Shared(options.data), options.build, options.seconds, options.peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
