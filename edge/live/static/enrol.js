// A stranger gets a name.

import { $, ago, make, plural } from "./dom.js";

let newest = null;
let asked = null;
let anyway = false;

export function remember(state) {
  newest = state;
}

export function ask(stranger) {
  const seen = newest?.strangers.find((other) => other.id === stranger);
  const sheet = $("sheet");
  if (!seen || sheet.open) return;
  asked = stranger;
  $("enrol").reset();
  settle();
  $("sheet-portrait").src = `/api/strangers/${stranger}/portrait?v=${seen.portrait}`;
  const near = seen.nearest === null ? "" : `\nMost like ${seen.nearest} (${seen.similarity.toFixed(2)}; a name needs ${newest.bundle.threshold.toFixed(2)})`;
  $("sheet-about").textContent = `Seen ${ago(newest.now - seen.last)} at ${seen.source}\n${plural(seen.looks, "picture", "pictures")} to enrol${near}`;
  $("known-names").replaceChildren(...newest.people.map((person) => make("option", { value: person.name })));
  sheet.showModal();
  $("name").focus();
}

function settle() {
  anyway = false;
  $("submit").textContent = "Enrol";
  $("submit").disabled = false;
  $("warnings").hidden = true;
  $("warnings").replaceChildren();
}

function warn(lines) {
  const list = make("ul", {}, ...[...new Set(lines)].map((line) => make("li", {}, line)));
  $("warnings").replaceChildren(list);
  $("warnings").hidden = false;
}

async function post(what, entries) {
  const answer = await fetch(`/api/strangers/${asked}/${what}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(entries),
  });
  const told = answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(told.error);
  return told;
}

async function enrol(event) {
  event.preventDefault();
  $("submit").disabled = true;
  $("submit").textContent = "Enrolling…";
  try {
    const told = await post("name", { name: $("name").value, anyway, keep_crops: $("keep-crops").checked });
    if (told.added) {
      $("sheet").close();
      const left = told.pictures - told.added;
      toast(`${told.name} is known from now on${left ? `; ${plural(left, "picture", "pictures")} left out` : ""}`);
      return;
    }
    settle();
    if (!told.warnings.length) {
      warn(["These pictures are in the gallery already."]);
      return;
    }
    warn(told.warnings.map((warning) => warning.text));
    anyway = true;
    $("submit").textContent = "Enrol anyway";
  } catch (error) {
    settle();
    warn([error.message || "The camera does not answer."]);
  }
}

async function forget() {
  try {
    await post("forget", {});
    $("sheet").close();
    toast("Forgotten");
  } catch (error) {
    warn([error.message]);
  }
}

let timer = 0;
export function toast(words) {
  $("toast").textContent = words;
  $("toast").classList.add("up");
  clearTimeout(timer);
  timer = setTimeout(() => $("toast").classList.remove("up"), 4000);
}

$("enrol").addEventListener("submit", enrol);
$("name").addEventListener("input", settle);
$("cancel").addEventListener("click", () => $("sheet").close());
$("forget").addEventListener("click", forget);
$("sheet").addEventListener("click", (event) => { if (event.target === $("sheet")) $("sheet").close(); });
