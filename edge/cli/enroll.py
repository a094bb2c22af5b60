"""`edge enroll`: from pictures or a camera to the gallery."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli import options
from edge.cli.verb import Verb
from edge.errors import InputError

if TYPE_CHECKING:
    from edge.analyze import FaceAnalyzer
    from edge.enrolment import EnrolmentOptions, Person, Report
    from edge.gallery import Gallery, Place


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_gallery(parser)
    options.add_threshold(parser)
    parser.add_argument(
        "pictures",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="a folder that holds one for each person, or pictures by name; with --name, pictures of one person",
    )
    parser.add_argument("--camera", metavar="SRC", help="take the best frames of a camera (or any source) instead")
    parser.add_argument("--name", help="who stands before the camera, or whom all the pictures show")
    parser.add_argument("--seconds", type=options.positive_float, default=8.0, help="to watch (default: %(default)g)")
    parser.add_argument("--shots", type=options.positive, default=5, help="frames to take (default: %(default)s)")
    parser.add_argument("--strict", action="store_true", help="leave out every picture that causes a warning")
    parser.add_argument(
        "--keep-crops", action="store_true", help="store the 112x112 crops too, so that the gallery can change models"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    if bool(args.pictures) == (args.camera is not None):
        raise InputError("give either pictures or --camera")
    if args.camera is not None and args.name is None:
        raise InputError("who stands before the camera? say it with --name")
    from edge.enrolment import EnrolmentOptions
    from edge.gallery import Binding, Gallery

    people = _people(args.pictures, args.name) if args.pictures else []
    precision = None
    key = options.gallery_key(args)
    if Gallery.exists(args.gallery):
        # More vectors for a gallery come from the variant that made those it holds.
        with Gallery.open(args.gallery, key) as there:
            there.require_writable()
            precision = there.variant_in(options.open_bundle(args)).precision
    with ExitStack() as opened:
        analyzer = opened.enter_context(options.open_analyzer(args, precision))
        threshold = args.threshold
        if threshold is None and analyzer.threshold is not None:
            threshold = analyzer.threshold.similarity
        chosen = EnrolmentOptions(strict=args.strict, keep_crops=args.keep_crops, threshold=threshold)
        binding = Binding.of(analyzer.embedder_variant)

        def open_gallery() -> Gallery:
            return opened.enter_context(Gallery.open_or_create(args.gallery, binding, key))

        if args.camera is None:
            reports = _from_pictures(analyzer, open_gallery(), people, chosen)
        else:
            reports = [_from_camera(args, analyzer, open_gallery, chosen)]
    _print(reports, as_json=args.json, gallery=args.gallery)
    if not any(report.fit for report in reports):
        raise InputError("nobody was enrolled; see the warnings above")
    return 0


def _people(paths: list[Path], name: str | None) -> list[Person]:
    from edge.enrolment import find_people, person_of

    if name is not None:
        return [person_of(name, paths)]
    if len(paths) > 1:
        raise InputError("several paths are of one person, named with --name; people have a folder each in one folder")
    return find_people(paths[0])


def _from_pictures(
    analyzer: FaceAnalyzer, gallery: Gallery, people: list[Person], chosen: EnrolmentOptions
) -> list[Report]:
    from tqdm import tqdm

    from edge.enrolment import enrol, pictures_in

    with tqdm(total=pictures_in(people), unit="picture", disable=None, leave=False) as bar:
        return [enrol(analyzer, gallery, person, chosen, bar.update) for person in people]


def _from_camera(
    args: argparse.Namespace, analyzer: FaceAnalyzer, open_gallery: Any, chosen: EnrolmentOptions
) -> Report:
    from tqdm import tqdm

    from edge.enrolment import Report, add, best_shots
    from edge.gallery.gallery import checked_name
    from edge.sources import open_source

    name = checked_name(args.name)
    with open_source(args.camera) as source, tqdm(total=100, unit="%", disable=None, leave=False) as bar:
        shots = best_shots(
            analyzer, source, args.shots, args.seconds, lambda share: bar.update(int(share * 100) - bar.n)
        )
    return add(open_gallery(), shots, chosen, Report(name, len(shots)))


def _print(reports: list[Report], *, as_json: bool, gallery: Place) -> None:
    if as_json:
        entries = [
            {
                "name": report.name,
                "pictures": report.pictures,
                "added": report.added,
                "warnings": [
                    {"problem": notice.problem.value, "source": notice.source, "text": notice.text}
                    for notice in report.notices
                ],
            }
            for report in reports
        ]
        print(json.dumps({"gallery": str(gallery), "people": entries}))
        return
    for report in reports:
        print(f"{report.name}: {report.added} new of {report.pictures}")
        for notice in report.notices:
            print(f"  warning: {notice.source}: {notice.text}", file=sys.stderr)
    print(f"{gallery}: {sum(report.added for report in reports)} faces of {len(reports)} people added")


VERB = Verb(
    name="enroll",
    summary="add people to a gallery, from pictures or a camera",
    configure=configure,
    run=run,
    description=(
        "Adds people to a gallery, which is made where there is none. PATH holds a folder for each person, or\n"
        "pictures named after them; with --name, every picture given is of that person. Pictures without a face, or\n"
        "with two, are left out; others worth a look are warned of."
    ),
    example=(
        "edge enroll --bundle arcedge.bundle --gallery people photos/\n"
        "edge enroll --bundle arcedge.bundle --gallery people --name ada portrait.jpg\n"
        "edge enroll --bundle arcedge.bundle --gallery people --name ada --camera 0"
    ),
)
