"""`edge doctor`: what this machine can run and why not the rest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge.cli.verb import Verb
from edge.errors import GateError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="also compare what its models compute here with what the export stored; exit code 3 where one deviates",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from edge.doctor import as_text, examine, examine_bundle

    checked = examine_bundle(args.bundle) if args.bundle is not None else []
    findings = [*examine(), *checked]
    print(json.dumps([asdict(finding) for finding in findings]) if args.json else as_text(findings))
    return 0 if all(finding.usable for finding in checked) else GateError.exit_code


VERB = Verb(
    name="doctor",
    summary="say what this machine can run, and why not the rest",
    configure=configure,
    run=run,
    description="Looks for engines, GPU, cameras, what OpenCV can do, and extras. Changes nothing.",
    example="edge doctor\nedge doctor --bundle face.bundle",
)
