"""`edge weights`: what ships, what can be fetched, and whether it is what it should be."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from edge.cli.verb import Verb
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.weights.registry import Entry


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=summary, description=summary)

    listing = action("list", "all weights: those that ship and those of the registry")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    show = action("show", "everything known about some weights")
    show.add_argument("name")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--contract", action="store_true", help="print the contract file that edge export --onnx takes")
    fetching = action("fetch", "bring weights of the registry into the cache; prints where they lie")
    fetching.add_argument("name")
    fetching.add_argument(
        "--from", dest="source", metavar="URL_OR_FILE", help="a mirror, or a copy you have; the digest must be the same"
    )
    fetching.add_argument("--offline", action="store_true", help="use the cache only (also: ARCEDGE_OFFLINE=1)")
    check = action("verify", "compare what ships, and what was fetched, with cards and registry")
    check.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all there are)")
    check.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        _list(as_json=args.json)
    elif args.action == "show":
        _show(args)
    elif args.action == "fetch":
        _fetch(args)
    else:
        _verify(args.names, as_json=args.json)
    return 0


def _list(*, as_json: bool) -> None:
    from edge.weights.inventory import inventory

    rows = inventory()
    if as_json:
        print(json.dumps([row.to_dict() for row in rows], ensure_ascii=False))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.name:{width}}  {row.role:10}  {row.state:10}  {_megabytes(row.size):>8}  {row.licence}")


def _show(args: argparse.Namespace) -> None:
    from edge.weights.inventory import inventory, shipped_card
    from edge.weights.registry import find_entry

    card = shipped_card(args.name)
    if card is not None and not args.contract:
        values = json.loads(card.path.read_text(encoding="utf-8"))
    elif card is not None:
        raise InputError(f"{args.name}: is a checkpoint of arcedge; edge export --weights needs no contract file")
    else:
        if args.name not in (names := [row.name for row in inventory()]):
            raise InputError(f"{args.name}: no such weights; there are {', '.join(names)}")
        entry = find_entry(args.name)
        if args.contract:
            if entry.contract is None:
                raise InputError(f"{args.name}: is a teacher, which no engine opens; it has no contract")
            print(_as_toml(entry.contract.to_dict()))
            return
        values = _described(entry)
    if args.json:
        print(json.dumps(values, ensure_ascii=False))
        return
    width = max(len(key) for key in values)
    for key, value in values.items():
        first, *more = _lines(key, value) or ["none"]
        print(f"{key:{width}}  {first}")
        for line in more:
            print(f"{'':{width}}  {line}")


def _lines(key: str, value: Any) -> list[str]:
    """An entry for people: a line a figure or sentence; what is long and nested is left to --json."""
    if key == "figures":
        return [_figure_line(figure) for figure in value]
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return list(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [text if isinstance(value, str) or len(text) <= 500 else "long; see --json"]


def _figure_line(figure: dict[str, Any]) -> str:
    """As in model_weights/README.md: value, 95 % interval, count, what it was measured on, and the target."""
    value = figure.get("value")
    text = f"{figure['what']}: " + ("not measured" if value is None else f"{value:g}")
    text += f" {figure['unit']}" if figure.get("unit") and value is not None else ""
    if "low" in figure and "high" in figure:
        text += f" [{figure['low']:g}, {figure['high']:g}]"
    text += f" of {figure['count']:,}" if "count" in figure else ""
    text += f"; {figure['on']}" if figure.get("on") else ""
    if figure.get("target"):
        text += f"; target: {figure['target']}"
        text += f", {'met' if figure['met'] else 'missed'}" if figure.get("met") is not None else ""
    return text


def _described(entry: Entry) -> dict[str, Any]:
    from edge.weights.cache import cached_path

    path = cached_path(entry)
    return {
        "name": entry.name,
        "role": entry.role,
        "about": entry.about,
        "origin": entry.origin,
        "licence": entry.licence,
        "file": entry.file,
        "digest": str(entry.digest),
        "size": entry.size,
        "address": entry.address or f"none: {entry.by_hand}",
        "cached": str(path) if path.is_file() else "no",
        "contract": entry.contract.to_dict() if entry.contract is not None else "none",
    }


def _fetch(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from edge.weights.cache import is_offline
    from edge.weights.fetch import fetch, source_size
    from edge.weights.inventory import shipped_card
    from edge.weights.registry import find_entry

    if shipped_card(args.name) is not None:
        raise InputError(f"{args.name}: ships with arcedge; there is nothing to fetch")
    entry = find_entry(args.name)
    with tqdm(
        total=source_size(entry, args.source), desc=entry.name, unit="B", unit_scale=True, disable=None, leave=False
    ) as bar:
        path = fetch(
            entry,
            source=args.source,
            offline=args.offline or is_offline(),
            progress=lambda got: _advance(bar, got),
        )
    print(f"edge weights: {entry.name}: licence: {entry.licence}", file=sys.stderr)
    print(path)


def _advance(bar: Any, got: int) -> None:
    """Moves the bar to `got` bytes, back too: a server may make us begin anew."""
    bar.n = got
    bar.update(0)


def _verify(names: list[str], *, as_json: bool) -> None:
    from edge.weights.inventory import faults

    found = faults(names)
    if as_json:
        print(json.dumps({name: fault or "ok" for name, fault in found.items()}))
    else:
        for name, fault in found.items():
            print(f"{name}: {fault or 'ok'}")
    if bad := [name for name, fault in found.items() if fault]:
        raise InputError(
            f"{len(bad)} of {len(found)} weights are not what they should be: {', '.join(bad)}; fetch those of the "
            "registry again with edge weights fetch NAME; for those that ship, install arcedge again"
        )


def _as_toml(contract: dict[str, Any]) -> str:
    """The flat entries of a contract; JSON's texts, numbers, booleans and lists are TOML's too."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in contract.items() if value is not None)


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.2f} MB"


VERB = Verb(
    name="weights",
    summary="list, fetch and verify weights: what ships, and what other parties offer",
    configure=configure,
    run=run,
    description=(
        "A fresh install recognises faces with the weights it ships. The registry names others that you may prefer,\n"
        "with origin, digest, licence and contract; nothing is fetched unless you ask for it by name."
    ),
    example=(
        "edge weights list\n"
        "edge weights fetch yunet-n-dynamic\n"
        "edge weights fetch mobilefacenet-original-512 --from model_mobilefacenet.pth\n"
        "edge weights show mobilefacenet-foamliu-128-onnx --contract > foamliu.toml"
    ),
)
