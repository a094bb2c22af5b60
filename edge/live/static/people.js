// Who was seen: people by name, and strangers who may get one.

import { $, ago, clock, make, plural, setText, sync } from "./dom.js";
import { ask } from "./enrol.js";

export function showPeople(state) {
  const threshold = state.bundle.threshold;
  setText($("people-count"), state.people.length ? String(state.people.length) : "");
  sync($("people-list"), state.people, (person) => person.name, newPerson, (row, person) => {
    const [portrait, , when, where, sure] = row.children;
    const source = `/api/portrait?name=${encodeURIComponent(person.name)}&v=${person.portrait}`;
    if (portrait.getAttribute("src") !== source) portrait.src = source;
    const passed = state.now - person.last;
    setText(when, passed < 2 ? "here now" : ago(passed));
    when.toggleAttribute("data-here", passed < 2);
    setText(where, `${person.source} · since ${clock(person.first)}`);
    const share = (value) => `${Math.max(0, Math.min(1, value)) * 100}%`;
    const [scale, value] = sure.children;
    scale.children[0].style.width = share(person.similarity);
    scale.children[1].style.left = share(threshold);
    setText(value, person.similarity.toFixed(2));
    sure.title = `Similarity ${person.similarity.toFixed(2)}, best ${person.best.toFixed(2)}; a name needs ${threshold.toFixed(2)}`;
  });
  $("people-empty").hidden = state.people.length > 0;
  setText($("people-empty"), state.gallery.identities
    ? `None of the ${plural(state.gallery.identities, "person", "people")} in the gallery was seen yet.`
    : "The gallery is empty. Give a stranger a name, and they are known from the next picture on.");
}

function newPerson(person) {
  const sure = make("span", { class: "sure" }, make("span", { class: "scale", "aria-hidden": "true" }, make("i"), make("b")), make("span"));
  return make("li", {},
    make("img", { alt: "", width: 48, height: 48 }),
    make("span", { class: "name", title: person.name }, person.name),
    make("span", { class: "when" }), make("span", { class: "where" }), sure);
}

const FEW = matchMedia("(max-width: 560px)").matches ? 6 : 9;
let everybody = false;

export function showStrangers(state) {
  setText($("strangers-count"), state.strangers.length ? String(state.strangers.length) : "");
  sync($("strangers-list"), everybody ? state.strangers : state.strangers.slice(0, FEW), (stranger) => stranger.id, newStranger, (item, stranger) => {
    const [portrait, , seen] = item.firstElementChild.children;
    const source = `/api/strangers/${stranger.id}/portrait?v=${stranger.portrait}`;
    if (portrait.getAttribute("src") !== source) portrait.src = source;
    setText(seen, state.sources.length > 1 ? `${ago(state.now - stranger.last)} · ${stranger.source}` : ago(state.now - stranger.last));
  });
  $("strangers-empty").hidden = state.strangers.length > 0;
  $("strangers-hint").hidden = state.strangers.length === 0;
  const more = $("strangers-more");
  more.hidden = state.strangers.length <= FEW;
  more.setAttribute("aria-expanded", String(everybody));
  setText(more, everybody ? "Show fewer" : `Show all ${state.strangers.length}`);
}

$("strangers-more").addEventListener("click", () => { everybody = !everybody; });

function newStranger(stranger) {
  const button = make("button", { type: "button" },
    make("img", { alt: "A stranger's face" }),
    make("span", { class: "give" }, "Name…"), make("span", { class: "seen" }));
  button.addEventListener("click", () => ask(stranger.id));
  return make("li", {}, button);
}
