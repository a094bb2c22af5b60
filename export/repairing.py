"""Which layers of an INT8 model stay in float: none, those a user names, or the fewest that its budget asks for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.errors import GateError, InputError
from export.calibration.table import CalibrationTable
from export.passes.equalise import EQUALISED
from export.passes.integer_pixels import integer_pixels
from export.passes.qdq import final_layers, placement
from export.request import ExportRequest
from export.sensitivity import LayerSensitivity, Repair, layer_sensitivity, orders, repair
from export.sources import Source
from export.subject import Subject
from export.tradeoff import TradeOff, measure
from export.variants import equalised_source

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Decision:
    """table: with the layers to keep. trade_off: what they buy and cost; None where nobody asked and none is kept."""

    table: CalibrationTable
    trade_off: TradeOff | None = None


def with_named(source: Source, table: CalibrationTable, names: Sequence[str]) -> CalibrationTable:
    """The table with those layers of `names` to keep in float that are the model's, beside those it keeps already.

    A layer that equalisation gave another output goes by its former name too.
    """
    layers = layers_to_keep(equalised_source(source, table))
    own = frozenset(layer for layer in layers if {layer, layer.removesuffix(EQUALISED)} & set(names))
    return table.keeping(own | frozenset(table.keep))


def decide(subject: Subject, least: float, request: ExportRequest, tell: Tell) -> Decision:
    """What stays in float of a model whose INT8 figure may not be below `least`.

    Layers that the table names stay; else none, where the whole is within the budget; else the fewest that bring it
    there. Raises GateError where half the layers in float are not enough.
    """
    table = subject.table
    before = subject.judge(subject.build(frozenset(table.keep))).figure
    wanted = request.report is not None
    if table.keep:
        by = "--keep" if request.keep else "the calibration table"
        why = f"{', '.join(table.keep)} in float, as {by} says: {subject.figure} {before:.5f}, the budget is {least}"
        return Decision(table, _measured(subject, frozenset(table.keep), why, request, ()) if wanted else None)
    if not request.repair or before >= least:
        why = f"whole INT8 has {subject.figure} {before:.5f}, the budget is {least}: no layer has to stay in float"
        return Decision(table, _measured(subject, frozenset(), why, request, ()) if wanted else None)
    tell(
        f"{subject.role}: INT8 has {subject.figure} {before:.5f}, the budget is {least}: "
        "looking for the layers that cost it"
    )
    layers = layer_sensitivity(subject.source.float_model, subject.build, subject.judge, quiet=request.quiet)
    order, found = fewest(subject, layers, least)
    if not found.reached:
        best = max(step.figure for step in found.steps)
        raise GateError(
            f"{subject.role}-int8: {subject.figure} {before:.5f} over {subject.on}, the budget is {least}; "
            f"{best:.5f} with half of its layers in float; nothing was written"
        )
    figure = next(step.figure for step in found.steps if step.keep == found.keep)
    why = (
        f"INT8 keeps {len(found.keep)} of {len(layers)} layers in float, the fewest in the order of {order}: "
        f"{subject.figure} {before:.5f} → {figure:.5f}"
    )
    tell(why)
    extra = [step.keep for step in found.steps]
    trade_off = _measured(subject, found.keep, why, request, layers, extra)
    return Decision(table.keeping(found.keep), trade_off)


def fewest(subject: Subject, layers: Sequence[LayerSensitivity], least: float) -> tuple[str, Repair]:
    """The repair that keeps least, of two orders to try the layers in, and the name of that order."""
    tried = {
        name: repair(order, least, subject.build, lambda data: subject.judge(data).figure)
        for name, order in orders(layers).items()
    }
    name = min(tried, key=lambda name: (not tried[name].reached, len(tried[name].keep)))
    return name, tried[name]


def layers_to_keep(source: Source) -> frozenset[str]:
    """Whatever `int8-cpu` quantises of a model, by output tensor: what --keep may name."""
    prepared = integer_pixels(source.float_model)
    return frozenset(placement(prepared, final_layers(prepared)).nodes)


def require_layers(names: Sequence[str], sources: Sequence[Source]) -> None:
    """Raises InputError for a name that is no layer of any of the models, equalised where they will be."""
    every = frozenset[str]().union(*(layers_to_keep(source) for source in sources))
    known = every | {layer.removesuffix(EQUALISED) for layer in every}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 3, 0.4)
            hint = f"; there are {', '.join(near)}" if near else ""
            raise InputError(f"--keep {name}: no layer that INT8 rounds{hint}; edge export --report DIR lists them all")


def _measured(
    subject: Subject,
    keep: frozenset[str],
    why: str,
    request: ExportRequest,
    layers: Sequence[LayerSensitivity],
    extra: Sequence[frozenset[str]] = (),
) -> TradeOff:
    found = layers or layer_sensitivity(subject.source.float_model, subject.build, subject.judge, quiet=request.quiet)
    return measure(subject, found, keep, why, extra=extra, quiet=request.quiet)
