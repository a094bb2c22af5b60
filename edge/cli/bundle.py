"""`edge bundle`: what a bundle holds, whether it is whole and whose it is, how two differ, and its engines."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli import options
from edge.cli.verb import Verb

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.manifest import Manifest, Variant


_DIGITS, _WIDTH, _LEAD = 6, 24, 6
"""Of a value in a comparison: digits, characters, and characters shown before the first that differs."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = _action(actions, "inspect", "the variants with their thresholds, and where they come from")
    inspect.add_argument("--json", action="store_true", help="print the whole manifest")
    _action(actions, "verify", "check size and digest of every file, and the signature where one is required")
    diff = _action(actions, "diff", "how two bundles differ; ends with 1 where they do")
    diff.add_argument("other", type=Path, metavar="OTHER")
    build = _action(actions, "build", "build and prove the TensorRT engines of this device ahead of time")
    build.add_argument("--photos", type=Path, metavar="DIR", help="photos of faces that engines are proved on")
    build.add_argument("--precision", choices=options.PRECISIONS, help="of the engines (default: all)")
    sign = actions.add_parser("sign", help="check every file, then sign the bundle")
    sign.add_argument("bundle", type=Path, metavar="BUNDLE")
    sign.add_argument("--key", required=True, type=Path, metavar="KEY", help="private key, made by keygen")
    keygen = actions.add_parser("keygen", help="make a key pair: KEY, to sign with, and KEY.pub, for devices")
    keygen.add_argument("key", type=Path, metavar="KEY")


def run(args: argparse.Namespace) -> int:
    if args.action == "keygen":
        return _keygen(args.key)
    if args.action == "sign":
        return _sign(args.bundle, args.key)
    bundle = options.open_signed(args.bundle, args.require_signed)
    if args.action == "build":
        return _build(bundle, args.precision, args.photos)
    if args.action == "inspect":
        print(json.dumps(bundle.manifest.to_dict(), indent=2) if args.json else _described(bundle))
        return 0
    if args.action == "verify":
        size = sum(len(bundle.load(variant)) for variant in bundle.manifest.variants)
        print(f"{args.bundle}: {len(bundle.manifest.variants)} files, {size / 1e6:.1f} MB, all as the manifest says")
        print(_signature(bundle, checked=args.require_signed is not None))
        return 0
    lines = differences(bundle.manifest, options.open_signed(args.other, args.require_signed).manifest)
    print("\n".join(lines) if lines else "the same variants")
    return 1 if lines else 0


def _action(actions: Any, name: str, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=words)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    options.add_require_signed(parser)
    return parser


def _build(bundle: Bundle, precision: str | None, photos: Path | None) -> int:
    from edge.device_engines import build_engines, real_pictures
    from edge.engines import get_engine
    from edge.errors import EngineError

    if missing := get_engine("tensorrt").available():
        raise EngineError(missing)
    pictures = real_pictures(bundle, photos) if photos is not None else None
    for variant, passport in build_engines(bundle, precision, pictures):
        parity = passport.facts["parity"]
        line = f"{variant.name:20} mean cosine {parity['mean']:.5f}, worst {parity['worst']:.5f}"
        floats = passport.facts["in_float"]
        kept = f"; without an INT8 kernel, in float: {', '.join(floats)}" if floats else ""
        print(f"{line} to ONNX Runtime over {parity['count']} {parity['on']}{kept}", flush=True)
    return 0


def _keygen(file: Path) -> int:
    from edge.signing import generate

    identity = generate(file)
    print(f"key {identity}: {file} signs, keep it secret; {file}.pub goes to whoever requires signed bundles")
    return 0


def _sign(path: Path, key_file: Path) -> int:
    from edge.bundle import Bundle, sign_bundle
    from edge.signing import SigningKey

    key = SigningKey.read(key_file)
    bundle = Bundle.open(path)
    for variant in bundle.manifest.variants:
        bundle.load(variant)
    signature = sign_bundle(bundle, key)
    print(f"{path}: signed with key {signature.key}")
    return 0


def _described(bundle: Bundle) -> str:
    lines = [_line(variant) for variant in bundle.manifest.variants]
    provenance = bundle.manifest.provenance
    lines += [f"{key}: {value}" for key, value in sorted(provenance.items()) if not isinstance(value, dict)]
    for role in ("embedder", "detector", "landmarker"):
        if isinstance(source := provenance.get(role), dict):
            lines.append(f"{role}: {source.get('file')}, sha256 {str(source.get('sha256'))[:12]}")
    calibration = provenance.get("calibration")
    for role, entry in calibration.items() if isinstance(calibration, dict) else ():
        if "method" in entry:
            lines.append(f"calibration of the {role}: {entry.get('count')} pictures, {entry['method']}")
    return "\n".join([*lines, _signature(bundle, checked=False)])


def _signature(bundle: Bundle, *, checked: bool) -> str:
    found = bundle.signature()
    if found is None:
        return "not signed"
    said = "signature checked" if checked else "not checked: name the public key with --require-signed"
    return f"signed with key {found.key}; {said}"


def _line(variant: Variant) -> str:
    line = f"{variant.name:20} {variant.size / 1e6:7.2f} MB  sha256 {variant.sha256[:12]}"
    if variant.threshold is not None:
        line += f"  threshold {variant.threshold.similarity:.3f} at FAR {variant.threshold.far:g}"
    if (found := variant.detection_score) is not None:
        line += f"  faces from a score of {found.score:g}, fitted on {found.faces:,}"
    return line


def differences(one: Manifest, two: Manifest) -> list[str]:
    """A line for each variant that only one of them has, and for each entry in which both differ."""
    mine = {variant.name: variant for variant in one.variants}
    theirs = {variant.name: variant for variant in two.variants}
    lines = [f"- {_line(mine[name])}" for name in sorted(mine.keys() - theirs.keys())]
    lines += [f"+ {_line(theirs[name])}" for name in sorted(theirs.keys() - mine.keys())]
    for name in sorted(mine.keys() & theirs.keys()):
        first, second = _entries(asdict(mine[name])), _entries(asdict(theirs[name]))
        changed = [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]
        lines += [f"{name} {key}: {' → '.join(_told_apart(first.get(key), second.get(key)))}" for key in changed]
        if mine[name].contract != theirs[name].contract:
            lines.append(f"{name}: the model contracts differ: galleries do not fit both")
    return lines


def _entries(value: Any, path: str = "") -> dict[str, Any]:
    """Nested entries by their path."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _entries(inner, f"{path}.{key}" if path else str(key))
    return found


def _told_apart(one: Any, two: Any) -> tuple[str, str]:
    """Both values as short as they can be while what differs is seen."""
    short = _short(one), _short(two)
    if short[0] != short[1]:
        return short
    if isinstance(one, float) and isinstance(two, float):
        both = ((f"{one:.{digits}g}", f"{two:.{digits}g}") for digits in range(_DIGITS + 1, 18))
        return next(((first, second) for first, second in both if first != second), (repr(one), repr(two)))
    texts = _text(one), _text(two)
    if texts[0] == texts[1]:  # as the number 1 and the word "1"
        return repr(one), repr(two)
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, (mine, theirs) in pairs if mine != theirs), min(map(len, texts)))
    begin = max(0, same - _LEAD)
    return _excerpt(texts[0], begin), _excerpt(texts[1], begin)


def _short(value: Any) -> str:
    text = f"{value:.{_DIGITS}g}" if isinstance(value, float) else _text(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH // 2]}…"


def _text(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _excerpt(text: str, begin: int) -> str:
    """A piece of a text from a place on, with what was left out marked."""
    end = begin + _WIDTH
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


VERB = Verb(
    name="bundle",
    summary="inspect a bundle, verify or sign it, compare two, or build its engines",
    configure=configure,
    run=run,
    example=(
        "edge bundle inspect arcedge.bundle\nedge bundle diff old.bundle new.bundle\n"
        "edge bundle build arcedge.bundle --photos photos\n"
        "edge bundle keygen release.key\nedge bundle sign arcedge.bundle --key release.key\n"
        "edge bundle verify arcedge.bundle --require-signed release.key.pub"
    ),
)
