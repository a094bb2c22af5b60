"""`edge rollout`: bundles to a fleet, with canaries, and back."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli import options
from edge.cli.verb import Verb
from edge.errors import GateError

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.rollout import Store
    from edge.rollout.trial import SelfTestTrial
    from edge.signing import PublicKey


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=summary, description=summary)

    install = action(
        "install", "bring the bundle that is meant for this device, test it, and switch to it; 3 if it fails"
    )
    install.add_argument(
        "--from", required=True, dest="source", metavar="URL_OR_PATH", help="index.json, or its folder"
    )
    install.add_argument("--device-id", metavar="ID", help="default: $ARCEDGE_DEVICE_ID, else the machine-id")
    install.add_argument("--retry", action="store_true", help="try bundles that failed here before")
    install.add_argument(
        "--gallery",
        type=Path,
        metavar="DIR",
        help="refuse a bundle whose vectors cannot be compared with this gallery's, be it in use already",
    )
    options.add_key(install)
    check = action("check", "test the bundle in use, and go back to the last good one where it fails; for every start")
    back = action("rollback", "go back to the previous bundle, which must pass its test")
    back.add_argument("--to", metavar="DIGEST", help="to the one whose digest begins so")
    status = action("status", "which bundle is in use, which was before, and what failed here")
    for command in (install, check, back, status):
        command.add_argument("--store", required=True, type=Path, metavar="DIR", help="the device's folder of bundles")
        command.add_argument("--json", action="store_true", help="print as JSON")
    for command in (install, check, back):
        _add_trial(command)
    publish = action("publish", "put a bundle into a folder for a web server, and name it in the index there")
    publish.add_argument("bundle", type=Path, metavar="BUNDLE")
    publish.add_argument("--to", required=True, type=Path, metavar="DIR", help="folder, made or added to")
    publish.add_argument(
        "--canary",
        type=options.positive_float,
        metavar="PERCENT",
        help="for this share of the devices first, not for all",
    )
    options.add_require_signed(publish)
    withdraw = action("withdraw", "end the canary: its devices go back to the bundle for all")
    withdraw.add_argument("--to", required=True, type=Path, metavar="DIR", help="folder of the index")


def _add_trial(parser: argparse.ArgumentParser) -> None:
    options.add_require_signed(parser)
    parser.add_argument("--precision", choices=options.PRECISIONS, help="to test (default: the bundle's first)")
    parser.add_argument("--engine", default="onnxruntime", help="to test on, or auto (default: %(default)s)")
    parser.add_argument(
        "--test-timeout", type=options.positive_float, default=900.0, metavar="S", help="seconds (default: %(default)g)"
    )


def run(args: argparse.Namespace) -> int:
    if args.action in ("publish", "withdraw"):
        return _serve(args)
    from edge.rollout import Store

    store = Store(args.store)
    steps = {"install": _install, "check": _check, "rollback": _rollback, "status": _status}
    return steps[args.action](args, store)


def _serve(args: argparse.Namespace) -> int:
    from edge.rollout.publish import publish, withdraw

    if args.action == "withdraw":
        index = withdraw(args.to)
        print(f"{args.to}: no canary; {_short(index.stable.digest) if index.stable else 'nothing'} is for all")
        return 0
    bundle = options.open_signed(args.bundle, args.require_signed)
    publish(bundle, args.to, args.canary)
    who = "all devices" if args.canary is None else f"{args.canary:g} % of the devices"
    print(f"{args.to / 'index.json'}: {_short(bundle.digest())} is for {who}")
    return 0


def _install(args: argparse.Namespace, store: Store) -> int:
    from tqdm import tqdm

    from edge.rollout import Installer, read_index
    from edge.rollout.canary import device_id

    device, index = device_id(args.device_id), read_index(args.source)
    with closing(tqdm(desc="bundle", unit="B", unit_scale=True, disable=None, leave=False)) as bar:

        def progress(there: int, total: int) -> None:
            bar.total, bar.n = total, there
            bar.update(0)

        installer = Installer(store, _trial(args), _key(args), _fits_gallery(args), progress=progress, retry=args.retry)
        found = installer.install(index, device)
    values = {"digest": found.digest, "before": found.before, "changed": found.changed, "refused": found.refused}
    was = (f", {_short(found.before)} before" if found.before else "") if found.changed else ", as before"
    if found.digest in found.refused:
        was = ", kept although it fails here"
    elif found.mended is not None:
        was = f", fetched anew: {found.mended}"
    _say(args, {**values, "mended": found.mended}, f"{store.folder / 'current'}: {_short(found.digest)}{was}")
    if found.refused:
        reasons = "; ".join(f"{_short(digest)}: {reason}" for digest, reason in found.refused.items())
        raise GateError(f"{reasons}; this device keeps {_short(found.digest)}")
    return 0


def _check(args: argparse.Namespace, store: Store) -> int:
    from edge.rollout import check

    found = check(store, _trial(args), _key(args))
    words = f"{store.folder / 'current'}: {_short(found.digest)} passes"
    if found.gone_back_from is not None:
        digest, reason = found.gone_back_from
        words = f"{words}; went back from {_short(digest) or 'a lost bundle'}: {reason}"
    _say(args, {"digest": found.digest, "gone_back_from": found.gone_back_from}, words)
    return 0


def _rollback(args: argparse.Namespace, store: Store) -> int:
    from edge.rollout import roll_back

    found = roll_back(store, _trial(args), _key(args), args.to)
    words = f"{store.folder / 'current'}: {_short(found.digest)}, {_short(found.before)} before"
    _say(args, {"digest": found.digest, "before": found.before}, words)
    return 0


def _status(args: argparse.Namespace, store: Store) -> int:
    refused = store.refused()
    values = {"current": store.current, "previous": store.previous, "kept": store.kept(), "refused": refused}
    lines = [f"current   {store.current or 'none'}", f"previous  {store.previous or 'none'}"]
    lines += [f"refused   {digest}: {reason}" for digest, reason in refused.items()]
    _say(args, values, "\n".join(lines))
    return 0


def _trial(args: argparse.Namespace) -> SelfTestTrial:
    from edge.rollout.trial import SelfTestTrial

    return SelfTestTrial(args.precision, args.engine, args.test_timeout)


def _key(args: argparse.Namespace) -> PublicKey | None:
    from edge.signing import PublicKey, required_key

    return required_key() if args.require_signed is None else PublicKey.read(args.require_signed)


def _fits_gallery(args: argparse.Namespace) -> Any:
    def accepts(bundle: Bundle) -> None:
        from edge.gallery import Gallery

        if args.gallery is not None:
            with Gallery.open(args.gallery, options.gallery_key(args)) as gallery:
                gallery.variant_in(bundle)

    return accepts


def _short(digest: str | None) -> str:
    return (digest or "")[:12]


def _say(args: argparse.Namespace, values: dict[str, Any], words: str) -> None:
    print(json.dumps(values) if args.json else words)


VERB = Verb(
    name="rollout",
    summary="bring bundles to a fleet: canaries, self-test, and back to the last good one",
    configure=configure,
    run=run,
    description=(
        "A device keeps bundles in a store and runs STORE/current, a link that changes in one step. A new bundle is\n"
        "checked and tested before the switch; one that fails is noted and not taken again."
    ),
    example=(
        "edge rollout publish my.bundle --to /srv/www/bundles --canary 5\n"
        "edge rollout install --from https://fleet.example/bundles/index.json --store /var/lib/arcedge/bundles\n"
        "edge run --bundle /var/lib/arcedge/bundles/current --gallery people --source 0\n"
        "edge rollout check --store /var/lib/arcedge/bundles\n"
        "edge rollout rollback --store /var/lib/arcedge/bundles"
    ),
)
