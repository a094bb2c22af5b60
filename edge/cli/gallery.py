"""`edge gallery`: look after who is known."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import finding, options, pulling
from edge.cli.verb import Verb
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.gallery import Gallery, Key


CHANGING = frozenset({"rename", "merge", "reject", "forget", "compact", "rekey"})
"""Actions that need to write the gallery."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=summary, description=summary)
        added.add_argument("gallery", type=options.place, metavar="GALLERY", help=options.PLACES)
        options.add_key(added)
        return added

    listing = action("list", "everybody, with the number of embeddings")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    show = action("show", "one person's embeddings and negatives, and where they came from")
    show.add_argument("name")
    show.add_argument("--json", action="store_true", help="print as JSON")
    finding.configure(action("find", "name the embeddings most like the face of a picture, best first"))
    rename = action("rename", "give a person another name")
    rename.add_argument("name")
    rename.add_argument("new_name")
    merge = action("merge", "make two names one person")
    merge.add_argument("name", help="the name that goes")
    merge.add_argument("into", help="the name that stays")
    _configure_reject(action("reject", "say of pictures that they are not a person, however alike"))
    forget = action("forget", "delete a person, or one embedding or negative, from the files too")
    what = forget.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?")
    what.add_argument("--number", type=int, help="only the vector of this number; see: edge gallery show")
    action("compact", "rewrite the files so that nothing deleted stays in them")
    export = action("export", "write everything to one file; of an encrypted gallery, encrypted")
    export.add_argument("file", type=Path, metavar="FILE.npz")
    clear = export.add_mutually_exclusive_group()
    clear.add_argument("--file-key", type=Path, metavar="FILE", help="encrypt with this key (default: the gallery's)")
    clear.add_argument("--plain", action="store_true", help="write an encrypted gallery in the clear")
    imported = action("import", "add an exported file's people")
    imported.add_argument("file", type=Path, metavar="FILE.npz")
    imported.add_argument("--file-key", type=Path, metavar="FILE", help="the file's key (default: the gallery's)")
    migrate = action("migrate", "embed the kept crops with another model, into a new gallery")
    migrate.add_argument("new_gallery", type=options.place, metavar="NEW_GALLERY")
    options.add_bundle(migrate)
    summary = "make a gallery of this machine a copy of a central one, or bring the copy up to date"
    pulling.configure(actions.add_parser("pull", help=summary, description=summary + pulling.DESCRIPTION))
    rekey = action("rekey", "encrypt a gallery, change its key, or take the encryption away")
    new = rekey.add_mutually_exclusive_group(required=True)
    new.add_argument("--new-key-file", type=Path, metavar="FILE", help="key to encrypt with from now on")
    new.add_argument("--plain", action="store_true", help="no encryption any more")
    summary = "make a new key, in a file only its owner may read"
    actions.add_parser("key", help=summary, description=summary).add_argument("file", type=Path, metavar="FILE")


def _configure_reject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="who the pictures are not")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="pictures of others, or folders")
    options.add_bundle(parser)
    parser.add_argument("--keep-crops", action="store_true", help="store the crops too, to change models later")


def run(args: argparse.Namespace) -> int:
    from edge.gallery import Gallery, Key

    if args.action == "key":
        Key.random().write(args.file)
        print(f"{args.file}: a new key; without it nobody reads what it encrypts, so keep a copy elsewhere")
        return 0
    key = options.gallery_key(args)
    if args.action == "pull":
        return pulling.run(args, key)
    if args.action == "import":
        from edge.gallery.exchange import import_gallery

        file_key = key if args.file_key is None else Key.read(args.file_key)
        print(f"{args.gallery}: {import_gallery(args.file, args.gallery, key, file_key)} embeddings added")
        return 0
    with Gallery.open(args.gallery, key) as gallery:
        if args.action in CHANGING:
            gallery.require_writable()
        _act(args, gallery, key)
    return 0


def _act(args: argparse.Namespace, gallery: Gallery, key: Key | None) -> None:
    if args.action == "list":
        _list(gallery, as_json=args.json)
    elif args.action == "show":
        _show(gallery, args.name, as_json=args.json)
    elif args.action == "find":
        finding.run(args, gallery)
    elif args.action == "rename":
        gallery.rename(args.name, args.new_name)
        print(f"{args.name} is now {args.new_name}")
    elif args.action == "merge":
        print(f"{gallery.merge(args.name, args.into)} embeddings of {args.name} are now of {args.into}")
    elif args.action == "reject":
        _reject(args, gallery)
    elif args.action == "forget":
        _forget(gallery, args.name, args.number)
    elif args.action == "compact":
        gallery.compact()
        done = (
            "nothing deleted is left in the files" if isinstance(args.gallery, Path) else "Milvus was asked to compact"
        )
        print(f"{args.gallery}: {done}")
    elif args.action == "export":
        _export(args, gallery, key)
    elif args.action == "rekey":
        _rekey(args, gallery)
    else:
        _migrate(args, gallery, key)


def _list(gallery: Gallery, *, as_json: bool) -> None:
    people = gallery.identities()
    if as_json:
        entries = [
            {"name": p.name, "embeddings": p.embeddings, "negatives": p.negatives, "created": p.created} for p in people
        ]
        facts = {"model": gallery.binding.model, "encrypted": gallery.private, "copy_of": gallery.origin}
        print(json.dumps({**facts, "people": entries}))
        return
    for person in people:
        print(f"{person.embeddings:6}  {_date(person.created)}  {person.name}{_negatives(person.negatives)}")
    encrypted = ", encrypted" if gallery.private else ""
    print(f"{len(people)} people, {sum(p.embeddings for p in people)} embeddings of {gallery.binding.model}{encrypted}")
    if gallery.origin is not None:
        print(f"a copy of {gallery.origin}")


def _show(gallery: Gallery, name: str, *, as_json: bool) -> None:
    entries = gallery.entries(name)
    if as_json:
        rows = [
            {
                "number": e.number,
                "source": e.source,
                "created": e.created,
                "crop": e.crop is not None,
                "negative": e.negative,
            }
            for e in entries
        ]
        print(json.dumps({"name": name, "embeddings": rows}))
        return
    for entry in entries:
        kept = "crop kept" if entry.crop is not None else "no crop"
        sign = f"not {name}: " if entry.negative else ""
        print(f"{entry.number:6}  {_date(entry.created)}  {kept:9}  {sign}{entry.source}")


def _reject(args: argparse.Namespace, gallery: Gallery) -> None:
    from tqdm import tqdm

    from edge.enrolment import Person, reject
    from edge.gallery import Binding
    from edge.pictures import find_pictures

    gallery.entries(args.name)  # a name nobody has is said before the models are opened
    pictures = find_pictures(args.pictures)
    precision = gallery.variant_in(options.open_bundle(args)).precision
    with (
        options.open_analyzer(args, precision) as analyzer,
        tqdm(total=len(pictures), unit="picture", disable=None, leave=False) as bar,
    ):
        gallery.require_same_model(Binding.of(analyzer.embedder_variant))
        report = reject(analyzer, gallery, Person(args.name, tuple(pictures)), bar.update, keep_crops=args.keep_crops)
    for notice in report.notices:
        print(f"  warning: {notice.source}: {notice.text}", file=sys.stderr)
    if len(report.notices) == report.pictures:
        raise InputError("nothing was rejected; see the warnings above")
    print(f"{args.name}: {report.added} new negatives of {report.pictures} pictures")


def _forget(gallery: Gallery, name: str | None, number: int | None) -> None:
    if number is not None:
        gallery.remove(number)
        print(f"embedding {number} is gone")
    elif name is not None:
        print(f"{name} is gone, with {gallery.forget(name)} embeddings")


def _export(args: argparse.Namespace, gallery: Gallery, key: Key | None) -> None:
    from edge.gallery import Key
    from edge.gallery.exchange import export_gallery

    file_key = None if args.plain else key if args.file_key is None else Key.read(args.file_key)
    count = export_gallery(gallery, args.file, file_key)
    print(f"{args.file}: {count} embeddings written{', encrypted' if file_key is not None else ''}")


def _rekey(args: argparse.Namespace, gallery: Gallery) -> None:
    from edge.gallery import Key

    gallery.rekey(None if args.plain else Key.read(args.new_key_file))
    print(f"{args.gallery}: {'not encrypted any more' if args.plain else f'encrypted with {args.new_key_file}'}")


def _migrate(args: argparse.Namespace, gallery: Gallery, key: Key | None) -> None:
    from tqdm import tqdm

    from edge.gallery import Binding
    from edge.gallery.exchange import migrate

    total = sum(person.embeddings + person.negatives for person in gallery.identities())
    with (
        options.open_analyzer(args) as analyzer,
        tqdm(total=total, unit="crop", disable=None, leave=False) as bar,
    ):
        binding = Binding.of(analyzer.embedder_variant)
        moved = migrate(gallery, args.new_gallery, binding, analyzer.embedder, bar.update, key)
    print(f"{args.new_gallery}: {moved.embedded} embeddings of {binding.model}; {moved.dropped} had no crop kept")


def _negatives(count: int) -> str:
    return f"  (and {count} not them)" if count else ""


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


VERB = Verb(
    name="gallery",
    summary="list, find, rename, merge, reject, forget, encrypt, export, import or pull the people of a gallery",
    configure=configure,
    run=run,
    example=(
        "edge gallery list people\n"
        "edge gallery reject people ada twin.jpg --bundle arcedge.bundle\n"
        "edge gallery forget people ada\n"
        "edge gallery export people people.npz\n"
        "edge gallery pull milvus:http://centre:19530/staff/berlin people --every 60"
    ),
)
