"""`edge doctor`: what this machine can run and why not the rest."""

from __future__ import annotations

import argparse
import json

from edge.cli.verb import Verb


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from edge.doctor import as_text, examine

    findings = examine()
    print(json.dumps([asdict(finding) for finding in findings]) if args.json else as_text(findings))
    return 0


VERB = Verb(
    name="doctor",
    summary="say what this machine can run, and why not the rest",
    configure=configure,
    run=run,
    description="Looks for engines, GPU, cameras, what OpenCV can do, and extras. Changes nothing.",
    example="edge doctor",
)
