"""The original pipeline's door to training: `python train.py -dataset DIR -model DIR`; `edge train` has the rest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge.errors import EdgeError
from edge.weights import find_weights
from training.faces import Finder
from training.job import run_job
from training.prepare import TrainingJob
from training.splits import split_of, write_tables
from training.summary import summarise


def main() -> int:
    """Fine-tunes on the data set, writes the model and the tables of its split into the model folder."""
    parser = argparse.ArgumentParser(description="Fine-tune MobileFaceNet on a folder of identities.")
    parser.add_argument("-dataset", type=Path, required=True, metavar="DIR", help="one folder a person, photos inside")
    parser.add_argument("-model", type=Path, required=True, metavar="DIR", help="folder the model files go to")
    args = parser.parse_args()
    try:
        job = TrainingJob(
            dataset=args.dataset,
            out=args.model,
            weights=find_weights(None, "embedder"),
            finder=Finder.of(None, None),
        )
        card = run_job(job, lambda text: print(text, file=sys.stderr))
        write_tables(split_of(card["split"]), args.model)
    except EdgeError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_code
    print(summarise(card, args.model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
