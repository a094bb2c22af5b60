"""What a central gallery in Milvus costs: `python -m benchmarks.central fill|search|copy|pull|away`.

    python -m benchmarks.central fill --centre milvus:people.db --vectors 100000
    python -m benchmarks.central search --centre milvus:people.db --out search.json
    python -m benchmarks.central copy --centre milvus:people.db --folder scratch --out copy.json
    python -m benchmarks.central pull --centre milvus:people.db --folder scratch --out pull.json
    python -m benchmarks.central away --folder scratch --out away.json

`fill` makes a gallery of made vectors, distributed as the shipped embedder's, four a person, over ten sites. `search`
compares the index with exact search (recall, latency, all sites and one), in a gallery as `fill` left it. `copy` pulls
the gallery to a device for the first time and gives the copy the probes of `search`. `pull` makes 1,000 changes and
brings that copy up to date. `away` kills a server, in a process of its own, in the middle of a pull. Milvus Lite runs
inside the process that opens its file: its processor time and its memory are counted. Say `--vectors` everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.central.changes import measure_away, measure_pull
from benchmarks.central.made import AXES, SEED, fill
from benchmarks.central.search import PROBES, find_truth, measure_copy, measure_search
from benchmarks.command import command
from benchmarks.provenance import Load, load_between, machine, now, versions
from benchmarks.vectors import SIZE
from edge.gallery import milvus, milvus_records, parse_place

INDEXES: dict[str, dict[str, Any]] = {
    "FLAT": {"index_type": "FLAT", "metric_type": "IP"},
    "HNSW": {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 16, "efConstruction": 200}},
}
SEARCHES: dict[str, dict[str, Any]] = {
    "FLAT": {"metric_type": "IP"},
    "HNSW": {"metric_type": "IP", "params": {"ef": 128}},
}
PACKAGES = ("pymilvus", "milvus-lite", "faiss-cpu")


def _write(path: Path, index: str, load: Load, found: dict[str, Any]) -> None:
    facts = {
        "time": now(),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "load": load_between(load, Load.now()),
        "made_vectors": {"size": SIZE, "axes": AXES, "seed": SEED},
        "index": INDEXES[index],
        "search_params": SEARCHES[index],
    }
    path.write_text(json.dumps({**facts, **found}, indent=1) + "\n", encoding="utf-8")


@command("central")
def main() -> None:
    """One of the five parts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.central", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("fill", "search", "copy", "pull", "away"))
    parser.add_argument("--centre", type=parse_place, help="milvus:FILE.db or milvus:http://HOST:PORT")
    parser.add_argument("--vectors", type=int, default=100_000, help="filled (default: %(default)s)")
    parser.add_argument("--probes", type=int, default=PROBES, help="searched for (default: %(default)s)")
    parser.add_argument(
        "--index", choices=tuple(INDEXES), default="FLAT", help="default: %(default)s, as edge makes it"
    )
    parser.add_argument("--folder", type=Path, help="for copies and servers' files")
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    milvus_records.EMBEDDING_INDEXES["vector"] = INDEXES[args.index]
    vars(milvus)["SEARCH_PARAMS"] = SEARCHES[args.index]
    load = Load.now()
    if args.part == "fill":
        found = {"fill": fill(args.centre, args.vectors)}
    elif args.part == "away":
        found = {"away": measure_away(args.folder)}
    elif args.part == "search":
        found = {"search": measure_search(args.centre, find_truth(args.vectors, args.probes))}
    elif args.part == "copy":
        found = {"copy": measure_copy(args.centre, args.folder, find_truth(args.vectors, args.probes))}
    else:
        found = {"pull": measure_pull(args.centre, args.folder)}
    if args.out is not None:
        _write(args.out, args.index, load, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
