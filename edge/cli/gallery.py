"""`edge gallery`: look after who is known."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.cli.verb import Verb

if TYPE_CHECKING:
    from edge.gallery import Gallery


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=summary, description=summary)
        added.add_argument("gallery", type=Path, metavar="GALLERY", help="gallery made by edge enroll")
        return added

    listing = action("list", "everybody, with the number of embeddings")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    show = action("show", "one person's embeddings and where they came from")
    show.add_argument("name")
    show.add_argument("--json", action="store_true", help="print as JSON")
    rename = action("rename", "give a person another name")
    rename.add_argument("name")
    rename.add_argument("new_name")
    merge = action("merge", "make two names one person")
    merge.add_argument("name", help="the name that goes")
    merge.add_argument("into", help="the name that stays")
    forget = action("forget", "delete a person, or one embedding, from the files too")
    what = forget.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?")
    what.add_argument("--number", type=int, help="only the embedding of this number; see: edge gallery show")
    action("compact", "rewrite the files so that nothing deleted stays in them")
    action("export", "write everything to one file").add_argument("file", type=Path, metavar="FILE.npz")
    action("import", "add an exported file's people").add_argument("file", type=Path, metavar="FILE.npz")
    migrate = action("migrate", "embed the kept crops with another model, into a new gallery")
    migrate.add_argument("new_gallery", type=Path, metavar="NEW_GALLERY")
    options.add_bundle(migrate)


def run(args: argparse.Namespace) -> int:
    if args.action == "import":
        from edge.gallery.exchange import import_gallery

        print(f"{args.gallery}: {import_gallery(args.file, args.gallery)} embeddings added")
        return 0
    from edge.gallery import Gallery

    with Gallery.open(args.gallery) as gallery:
        if args.action == "list":
            _list(gallery, as_json=args.json)
        elif args.action == "show":
            _show(gallery, args.name, as_json=args.json)
        elif args.action == "rename":
            gallery.rename(args.name, args.new_name)
            print(f"{args.name} is now {args.new_name}")
        elif args.action == "merge":
            print(f"{gallery.merge(args.name, args.into)} embeddings of {args.name} are now of {args.into}")
        elif args.action == "forget":
            _forget(gallery, args.name, args.number)
        elif args.action == "compact":
            gallery.compact()
            print(f"{args.gallery}: nothing deleted is left in the files")
        elif args.action == "export":
            from edge.gallery.exchange import export_gallery

            print(f"{args.file}: {export_gallery(gallery, args.file)} embeddings written")
        else:
            _migrate(args, gallery)
    return 0


def _list(gallery: Gallery, *, as_json: bool) -> None:
    people = gallery.identities()
    if as_json:
        entries = [{"name": p.name, "embeddings": p.embeddings, "created": p.created} for p in people]
        print(json.dumps({"model": gallery.binding.model, "people": entries}))
        return
    for person in people:
        print(f"{person.embeddings:6}  {_date(person.created)}  {person.name}")
    print(f"{len(people)} people, {sum(p.embeddings for p in people)} embeddings of {gallery.binding.model}")


def _show(gallery: Gallery, name: str, *, as_json: bool) -> None:
    entries = gallery.entries(name)
    if as_json:
        rows = [
            {"number": e.number, "source": e.source, "created": e.created, "crop": e.crop is not None} for e in entries
        ]
        print(json.dumps({"name": name, "embeddings": rows}))
        return
    for entry in entries:
        kept = "crop kept" if entry.crop is not None else "no crop"
        print(f"{entry.number:6}  {_date(entry.created)}  {kept:9}  {entry.source}")


def _forget(gallery: Gallery, name: str | None, number: int | None) -> None:
    if number is not None:
        gallery.remove(number)
        print(f"embedding {number} is gone")
    elif name is not None:
        print(f"{name} is gone, with {gallery.forget(name)} embeddings")


def _migrate(args: argparse.Namespace, gallery: Gallery) -> None:
    from tqdm import tqdm

    from edge.gallery import Binding
    from edge.gallery.exchange import migrate

    total = sum(person.embeddings for person in gallery.identities())
    with (
        options.open_analyzer(args) as analyzer,
        tqdm(total=total, unit="crop", disable=None, leave=False) as bar,
    ):
        binding = Binding.of(analyzer.embedder_variant)
        moved = migrate(gallery, args.new_gallery, binding, analyzer.embedder, bar.update)
    print(f"{args.new_gallery}: {moved.embedded} embeddings of {binding.model}; {moved.dropped} had no crop kept")


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


VERB = Verb(
    name="gallery",
    summary="list, rename, merge, forget, export or import the people of a gallery",
    configure=configure,
    run=run,
    example="edge gallery list people\nedge gallery forget people ada\nedge gallery export people people.npz",
)
