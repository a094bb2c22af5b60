"""The comparison table: one row a figure, one column a variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.provenance import NOT_MEASURED
from benchmarks.report.text import count, interval, number, rate, size


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure, with its interval or count below it."""

    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """name: of the figure, unit included. over: what it was counted over. cells: one a variant."""

    group: str
    name: str
    over: str
    cells: tuple[Cell, ...]


def comparison_rows(report: Mapping[str, Any]) -> list[Row]:
    """All rows, in the order of the page."""
    return [*_latency(report), *_accuracy(report), *_cost(report)]


def _latency(report: Mapping[str, Any]) -> Iterator[Row]:
    latency = report["latency"]
    labels = [variant["label"] for variant in report["variants"]]
    figures = [latency["variants"][label] for label in labels]
    over = f"{latency['rounds']:,} frames each"
    group = "Latency"
    for name in ("p50", "p95", "p99"):
        cells = tuple(_quantile(figure["frame"]["wall_ms"][name], latency["rounds"]) for figure in figures)
        yield Row(group, f"Frame, {name}, ms", over, cells)
    for what, name in (
        ("frame", "Frame"),
        ("frame_cpu", "Frame, processor time"),
        ("detect", "Detector"),
        ("embed", "Embedder"),
    ):
        cells = tuple(
            Cell("1", "baseline") if label == report["baseline"] else _times(figure["speedup"].get(what))
            for label, figure in zip(labels, figures, strict=True)
        )
        yield Row(group, f"{name}, times faster", "the same rounds", cells)
    for stage in ("detect", "embed"):
        cells = tuple(_quantile(figure["stages"][stage]["wall_ms"]["p50"], latency["rounds"]) for figure in figures)
        yield Row(group, f"{stage.capitalize()}, p50, ms", over, cells)
    cells = tuple(Cell(number(figure["frame"]["cpu_ms"]), "median") for figure in figures)
    yield Row(group, "Frame, processor time, ms", "whatever else the machine did", cells)
    if streams := latency.get("streams"):
        best = [max(streams["rows"][label], key=lambda row: row["frames_a_second"]["value"]) for label in labels]
        cells = tuple(
            Cell(number(row["frames_a_second"]["value"], 1), f"{interval(row['frames_a_second'], 1)} {_streams(row)}")
            for row in best
        )
        yield Row(group, "Throughput, frames a second", f"best of {_listed(streams['counts'])} streams", cells)


def _accuracy(report: Mapping[str, Any]) -> Iterator[Row]:
    accuracy = report["accuracy"]
    labels = [variant["label"] for variant in report["variants"]]
    missing = tuple(Cell(NOT_MEASURED) for _ in labels)
    yield from (
        _pairs(accuracy["pairs"], labels, report["baseline"])
        if accuracy["pairs"]
        else iter([Row("Accuracy", "Pairs, accuracy by folds", "give --pairs and --images", missing)])
    )
    yield from (
        _identities(accuracy["identities"], labels, report["baseline"])
        if accuracy["identities"]
        else iter([Row("Accuracy", "Identities, rank-1, TAR at FAR", "give --identities", missing)])
    )
    if report.get("detection"):
        yield from _detection(report["detection"], labels)
    drift = accuracy["drift"]
    references = {label: one.get("reference", drift["baseline"]) for label, one in drift["variants"].items()}
    cells = tuple(
        _drift(drift["variants"][label]) if label in references else Cell("1", "the reference") for label in labels
    )
    several = len(set(references.values())) > 1
    name = "Cosine to the bundle's own first variant" if several else f"Cosine to {drift['baseline']}"
    yield Row("Accuracy", f"{name}, median", f"{drift['faces']:,} faces", cells)


def _pairs(pairs: Mapping[str, Any], labels: list[str], baseline: str) -> Iterator[Row]:
    figures = [pairs["variants"][label] for label in labels]
    over = f"{pairs['pairs']:,} pairs, {pairs['folds']} folds"
    yield Row("Accuracy", "Pairs, accuracy by folds, %", over, tuple(_percent(one["accuracy"]) for one in figures))
    cells = tuple(
        Cell("0", "baseline") if label == baseline else _points(one["against_baseline"]["loss"])
        for label, one in zip(labels, figures, strict=True)
    )
    yield Row("Accuracy", "Pairs, points lost", f"drawn over {pairs['identities']:,} identities", cells)
    cells = tuple(
        Cell("–", "baseline")
        if label == baseline
        else Cell(
            f"{one['against_baseline']['mcnemar']['p']:.2g}",
            f"{one['against_baseline']['mcnemar']['only_first']} lost, "
            f"{one['against_baseline']['mcnemar']['only_second']} won",
        )
        for label, one in zip(labels, figures, strict=True)
    )
    yield Row("Accuracy", "Pairs, McNemar p", "exact, two-sided", cells)


def _identities(identities: Mapping[str, Any], labels: list[str], baseline: str) -> Iterator[Row]:
    figures = [identities["variants"][label] for label in labels]
    over = f"{figures[0]['rank_one']['count']:,} probes, {identities['identities']:,} identities"
    yield Row("Accuracy", "Identities, rank-1, %", over, tuple(_percent(one["rank_one"]) for one in figures))
    for position, first in enumerate(figures[0]["tar_at_far"]):
        name = f"TAR at FAR {rate(first['far'])}, %"
        yield Row(
            "Accuracy",
            name,
            f"{identities['genuine']:,} genuine, {identities['impostor']:,} impostor pairs",
            tuple(_tar(one["tar_at_far"][position]) for one in figures),
        )
        cells = tuple(
            Cell("0", "baseline")
            if label == baseline
            else _points(one["against_baseline"]["tar_loss"][position]["loss"])
            for label, one in zip(labels, figures, strict=True)
        )
        if identities["by_identity"] and first["refusal"] is None:
            yield Row("Accuracy", f"TAR at FAR {rate(first['far'])}, points lost", "drawn over identities", cells)
    strangers = figures[0]["open_set"]
    for position, first in enumerate(strangers["rows"]):
        yield Row(
            "Accuracy",
            f"Open set, FNIR at FPIR {rate(first['fpir'])}, %",
            f"{strangers['enrolled']:,} enrolled, {strangers['probes']:,} probes, {strangers['strangers']:,} strangers",
            tuple(_fnir(one["open_set"]["rows"][position]) for one in figures),
        )


def _detection(detection: Mapping[str, Any], labels: list[str]) -> Iterator[Row]:
    lines = [detection["lines"][label] for label in labels]
    over = f"{detection['faces']:,} faces of {detection['pictures']:,} pictures"
    cells = tuple(
        Cell(number(100 * one["average_precision"]["value"]), interval(one["average_precision"], 2, 100))
        for one in lines
    )
    yield Row("Accuracy", "Detector, AP at IoU 0.5, %", over, cells)
    cells = tuple(
        Cell(
            number(100 * one["recall"]["value"]),
            f"{interval(one['recall'], 2, 100)} {one['false_alarms']} false alarms",
        )
        for one in lines
    )
    yield Row("Accuracy", "Detector, faces found, %", "at the working threshold", cells)
    marks = detection["landmarks"]
    if any(label in marks["lines"] for label in labels):
        cells = tuple(_landmarks(marks["lines"].get(label)) for label in labels)
        yield Row("Accuracy", "Landmark error, median, % of the eye distance", f"against {marks['reference']}", cells)


def _landmarks(figure: Mapping[str, Any] | str | None) -> Cell:
    if figure is None or isinstance(figure, str):
        return Cell("0", "the reference") if figure is None else Cell(NOT_MEASURED, "too few faces")
    missed = f"{figure['faces']} faces, {figure['missed']} missed"
    return Cell(number(100 * figure["median"]["value"]), f"{interval(figure['median'], 2, 100)} {missed}")


def _streams(row: Mapping[str, Any]) -> str:
    count = row["streams"]
    return "one stream" if count == 1 else f"{count} streams"


def _listed(counts: list[int]) -> str:
    return ", ".join(str(count) for count in counts)


def _bytes(variant: Mapping[str, Any]) -> list[int]:
    """Of a variant's models; results of before there were landmarkers have two."""
    return [found["bytes"] for role in ("embedder", "detector", "landmarker") if (found := variant.get(role))]


def _cost(report: Mapping[str, Any]) -> Iterator[Row]:
    latency = report["latency"]
    variants = report["variants"]
    yield Row(
        "Cost",
        "Size on disk",
        "embedder + detector + landmarker" if any(one.get("landmarker") for one in variants) else "embedder + detector",
        tuple(Cell(size(sum(_bytes(one))), " + ".join(size(part) for part in _bytes(one))) for one in variants),
    )
    if (energy := latency.get("energy")) and energy["measured"]:
        for position, meter in enumerate(energy["meters"]):
            figures = [energy["variants"][one["label"]][position]["above_idle"] for one in variants]
            yield Row(
                "Cost",
                f"Energy of a frame above idle, mJ, {meter['name']}",
                f"idle {number(meter['idle_watts'], 1)} W",
                tuple(Cell(number(1000 * one["value"], 1), interval(one, 1, 1000)) for one in figures),
            )
    memory = latency["memory_mib"]
    yield Row(
        "Cost",
        "Memory of the models, MiB",
        "a process of its own",
        tuple(
            Cell(NOT_MEASURED, str(memory[one["label"]]))
            if isinstance(memory[one["label"]], str)
            else Cell(f"{memory[one['label']]['models']:.0f}", f"peak {memory[one['label']]['peak']:.0f} in all")
            for one in variants
        ),
    )
    cold = latency["cold_start"]
    yield Row(
        "Cost",
        "Cold start, ms",
        "opening + first frame, median",
        tuple(
            Cell(
                number(cold[one["label"]]["open_ms"] + cold[one["label"]]["first_frame_ms"], 0),
                f"slowest {number(cold[one['label']]['slowest_ms'], 0)} of {cold[one['label']]['opens']}",
            )
            for one in variants
        ),
    )


def _quantile(figure: Mapping[str, Any] | None, rounds: int) -> Cell:
    if figure is None:
        return Cell(NOT_MEASURED, f"{rounds} frames are too few")
    return Cell(number(figure["value"]), interval(figure))


def _times(figure: Mapping[str, Any] | None) -> Cell:
    if figure is None:
        return Cell(NOT_MEASURED)
    return Cell(number(figure["value"]), interval(figure))


def _percent(figure: Mapping[str, Any]) -> Cell:
    return Cell(number(100 * figure["value"]), f"{interval(figure, 2, 100)} {count(figure)}")


def _tar(row: Mapping[str, Any]) -> Cell:
    if row["tar"] is None:
        return Cell(NOT_MEASURED, "too few impostor pairs")
    by_identity = row["tar_by_identity"]
    if by_identity is None:
        return _percent(row["tar"])
    return Cell(number(100 * row["tar"]["value"]), f"{interval(by_identity, 2, 100)} {count(row['tar'])}")


def _fnir(row: Mapping[str, Any]) -> Cell:
    return Cell(NOT_MEASURED, "too few strangers") if row["fnir"] is None else _percent(row["fnir"])


def _points(figure: Mapping[str, Any] | None) -> Cell:
    if figure is None:
        return Cell(NOT_MEASURED, "too few identities")
    return Cell(number(100 * figure["value"]), interval(figure, 2, 100))


def _drift(figure: Mapping[str, Any] | None) -> Cell:
    if figure is None:
        return Cell(NOT_MEASURED, "another embedding size")
    if figure["median"] is None:
        return Cell(number(figure["minimum"], 5), "one face")
    return Cell(number(figure["median"]["value"], 5), f"lowest {number(figure['minimum'], 4)}")
