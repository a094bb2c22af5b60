"""The original pipeline's door to testing: `python test.py -dataset DIR -model DIR -df DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge.errors import EdgeError
from training.faces import Finder
from training.retest import retest


def main() -> int:
    """Names the test photos of the tables with a trained model, and prints how many are right."""
    parser = argparse.ArgumentParser(description="Test a fine-tuned MobileFaceNet on the test photos of a split.")
    parser.add_argument("-dataset", type=Path, required=True, metavar="DIR", help="one folder a person, photos inside")
    parser.add_argument("-model", type=Path, required=True, metavar="DIR", help="folder with the model files")
    parser.add_argument(
        "-df", type=Path, required=True, metavar="DIR", help="folder with train.csv, valid.csv, test.csv"
    )
    args = parser.parse_args()
    try:
        report = retest(args.dataset, args.model, args.df, Finder.of(None, None))
    except EdgeError as error:
        print(f"test.py: {error}", file=sys.stderr)
        return error.exit_code
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
