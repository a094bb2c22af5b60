"""`edge bundle`: what a bundle holds, whether it is whole, and how two differ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.verb import Verb

if TYPE_CHECKING:
    from edge.manifest import Manifest, Variant


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="the variants with their thresholds, and where they come from")
    inspect.add_argument("bundle", type=Path, metavar="BUNDLE")
    inspect.add_argument("--json", action="store_true", help="print the whole manifest")
    verify = actions.add_parser("verify", help="check size and digest of every file")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    diff = actions.add_parser("diff", help="how two bundles differ; ends with 1 where they do")
    diff.add_argument("bundle", type=Path, metavar="BUNDLE")
    diff.add_argument("other", type=Path, metavar="OTHER")


def run(args: argparse.Namespace) -> int:
    from edge.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    if args.action == "inspect":
        print(json.dumps(bundle.manifest.to_dict(), indent=2) if args.json else _described(bundle.manifest))
        return 0
    if args.action == "verify":
        size = sum(len(bundle.load(variant)) for variant in bundle.manifest.variants)
        print(f"{args.bundle}: {len(bundle.manifest.variants)} files, {size / 1e6:.1f} MB, all as the manifest says")
        return 0
    lines = _differences(bundle.manifest, Bundle.open(args.other).manifest)
    print("\n".join(lines) if lines else "the same variants")
    return 1 if lines else 0


def _described(manifest: Manifest) -> str:
    lines = [_line(variant) for variant in manifest.variants]
    lines += [f"{key}: {value}" for key, value in sorted(manifest.provenance.items()) if not isinstance(value, dict)]
    return "\n".join(lines)


def _line(variant: Variant) -> str:
    line = f"{variant.name:20} {variant.size / 1e6:7.2f} MB  sha256 {variant.sha256[:12]}"
    if variant.threshold is None:
        return line
    return f"{line}  threshold {variant.threshold.similarity:.3f} at FAR {variant.threshold.far:g}"


def _differences(one: Manifest, two: Manifest) -> list[str]:
    """A line for each variant that only one of them has, or that both have with other content."""
    mine = {variant.name: variant for variant in one.variants}
    theirs = {variant.name: variant for variant in two.variants}
    lines = []
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in theirs:
            lines.append(f"- {_line(mine[name])}")
        elif name not in mine:
            lines.append(f"+ {_line(theirs[name])}")
        elif mine[name] != theirs[name]:
            lines += [f"- {_line(mine[name])}", f"+ {_line(theirs[name])}"]
            if mine[name].contract != theirs[name].contract:
                lines.append("  the model contracts differ as well: galleries do not fit both")
    return lines


VERB = Verb(
    name="bundle",
    summary="inspect a bundle, verify its files, or compare two",
    configure=configure,
    run=run,
    example="edge bundle inspect arcedge.bundle\nedge bundle diff old.bundle new.bundle",
)
