// What a frame costs, and whether all is well.

import { $, make, plural, setText, sync } from "./dom.js";

const KEPT = 60;
const past = new Map();

export function showStages(state) {
  const most = Math.max(1e-6, ...state.stages.map((stage) => stage.p95));
  sync($("stages"), state.stages, (stage) => stage.name, newStage, (row, stage) => {
    const [, track, spark, values] = row.children;
    track.children[0].style.width = `${(stage.p95 / most) * 100}%`;
    track.children[1].style.width = `${(stage.p50 / most) * 100}%`;
    const line = past.get(stage.name) ?? past.set(stage.name, []).get(stage.name);
    line.push(stage.p50);
    if (line.length > KEPT) line.shift();
    const top = Math.max(...line, 1e-6);
    const points = line.map((value, place) => `${((KEPT - line.length + place) * 72) / (KEPT - 1)},${(19 - (value / top) * 17).toFixed(1)}`);
    spark.firstElementChild.setAttribute("points", points.join(" "));
    values.firstElementChild.textContent = digits(stage.p50);
    values.lastChild.textContent = ` / ${digits(stage.p95)} ms`;
  });
  $("stages-empty").hidden = state.stages.length > 0;
}

const digits = (milliseconds) => milliseconds.toFixed(milliseconds < 10 ? 1 : 0);

function newStage(stage) {
  const spark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  spark.setAttribute("class", "spark");
  spark.setAttribute("aria-hidden", "true");
  spark.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  return make("div", { class: "stage", role: "listitem" },
    make("span", {}, stage.name), make("span", { class: "track", "aria-hidden": "true" }, make("i"), make("i")),
    spark, make("span", { class: "ms" }, make("b"), ""));
}

export function showHealth(state) {
  const sum = (key) => state.sources.reduce((total, source) => total + source[key], 0);
  const lost = sum("dropped") + sum("late");
  const facts = [
    ["Frames", sum("frames").toLocaleString()],
    ["Frames dropped", `${lost.toLocaleString()}${share(lost, sum("captured"))}`],
    ["Frames waiting", sum("under_way").toLocaleString()],
    ["Not decodable", sum("corrupt").toLocaleString(), sum("corrupt") > 0],
    ["Reconnects", sum("reconnects").toLocaleString()],
    ["Engine errors", sum("engine_errors").toLocaleString(), sum("engine_errors") > 0],
    ["Gallery", state.gallery.readable ? `${plural(state.gallery.identities, "person", "people")}, ${plural(state.gallery.vectors, "face", "faces")}` : "cannot be read", !state.gallery.readable],
    ...state.sinks.map((sink) => [sink.name, fate(sink), sink.lost + sink.dropped + sink.refused > 0]),
  ];
  sync($("facts"), facts, ([name]) => name, ([name]) => make("div", {}, make("dt", {}, name), make("dd")), (entry, [, value, bad]) => {
    setText(entry.lastElementChild, value);
    entry.lastElementChild.classList.toggle("bad", Boolean(bad));
  });
  const bundle = state.bundle;
  setText($("foot"), `${bundle.detector} and ${bundle.embedder} on ${bundle.engine} · bundle ${bundle.digest.slice(0, 12)} · names from ${bundle.threshold.toFixed(2)} · arcedge ${state.version}`);
}

// What became of a sink's results; one that has nothing to say wrote them all.
function fate(sink) {
  const parts = ["lost", "dropped", "refused", "waiting"].filter((key) => sink[key]).map((key) => `${sink[key].toLocaleString()} ${key}`);
  return parts.join(", ") || "all written";
}

const share = (part, whole) => (part && whole ? ` (${((100 * part) / whole).toFixed(1)} %)` : "");
