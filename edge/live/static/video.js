// A camera: its newest frames, one after the other as they are shown, and who is in them, drawn over each.

import { $, make, setText, sync } from "./dom.js";
import { ask } from "./enrol.js";

const WORDS = {
  waiting: "Waiting for the first picture",
  stalled: "No picture for a while. The camera is being tried again.",
  failed: "This camera has failed",
  ended: "This source has ended",
};
const MOST_REQUESTS = 3; // a browser opens six connections to a server, and others are needed

let under_way = 0;
const waiting = [];

async function turn() {
  if (under_way >= MOST_REQUESTS) await new Promise((resolve) => waiting.push(resolve));
  else under_way += 1;
}

function pass() {
  const next = waiting.shift();
  if (next) next();
  else under_way -= 1;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

class Camera {
  constructor(number, name) {
    this.number = number;
    this.version = 0;
    this.state = "waiting";
    this.visible = true;
    this.image = make("img", { alt: `Picture of ${name}` });
    this.image.hidden = true;
    this.faces = make("div", { "aria-hidden": "true" });
    this.message = make("div", { class: "message" }, WORDS.waiting);
    this.picture = make("div", { class: "picture" }, this.image, this.faces, this.message);
    this.label = make("strong", {}, make("span", { class: "dot" }), make("span", {}, name));
    this.detail = make("span");
    this.rate = make("span", { class: "rate" });
    const about = make("div", { class: "about" }, this.label, this.detail, this.rate);
    this.element = make("article", { class: "camera" }, this.picture, about);
    this.element.setAttribute("aria-label", name);
    this.faces.addEventListener("pointerdown", (event) => {
      const face = event.target.closest("[data-stranger]");
      if (face) ask(face.dataset.stranger);
    });
    new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; }).observe(this.element);
    this.run();
  }

  // Asks for the next frame when the last is shown: a slow phone gets fewer, never older ones.
  async run() {
    for (;;) {
      const idle = document.hidden || !this.visible || (this.version > 0 && this.state !== "running");
      if (idle) { await pause(250); continue; }
      await turn();
      let shown = false;
      try { shown = await this.next(); } catch { /* the connection is lost; the page says so */ }
      finally { pass(); }
      await pause(shown ? 0 : 600);
    }
  }

  async next() {
    const width = Math.round(this.picture.clientWidth * Math.min(devicePixelRatio, 2));
    const answer = await fetch(`/api/sources/${this.number}/frame?after=${this.version}&width=${width}`);
    if (answer.status !== 200) return false;
    const faces = JSON.parse(answer.headers.get("X-Faces"));
    const url = URL.createObjectURL(await answer.blob());
    const fresh = new Image();
    fresh.src = url;
    await fresh.decode();
    this.version = Number(answer.headers.get("X-Version"));
    const before = this.image.src;
    this.picture.style.aspectRatio = `${fresh.naturalWidth} / ${fresh.naturalHeight}`;
    this.image.src = url;
    this.image.hidden = false;
    if (before) URL.revokeObjectURL(before);
    this.draw(faces);
    return true;
  }

  draw(faces) {
    sync(this.faces, faces.map((face, place) => ({ ...face, place })), (face) => face.place,
      () => make("div", { class: "face" }, make("span")), (element, face) => {
        const [x, y, width, height] = face.box;
        Object.assign(element.style, {
          left: `${x * 100}%`, top: `${y * 100}%`, width: `${width * 100}%`, height: `${height * 100}%`,
        });
        element.dataset.state = face.state;
        if (face.stranger === null) delete element.dataset.stranger;
        else element.dataset.stranger = face.stranger;
        element.classList.toggle("low", y * this.picture.clientHeight < 28);
        element.classList.toggle("right", x + width / 2 > 0.72);
        const label = element.firstElementChild;
        const words = face.name ?? (face.state === "unknown" ? "Unknown" : "");
        if (label.dataset.words !== words) {
          label.replaceChildren(words);
          if (face.name !== null) label.append(make("small"));
          label.dataset.words = words;
        }
        if (face.name !== null) setText(label.lastElementChild, face.similarity.toFixed(2));
      });
    this.place();
  }

  // Names before strangers. A label that would lie over another goes below its box; a stranger's that has no room is left
  // out, as the box says as much.
  place() {
    const picture = this.picture.getBoundingClientRect();
    const taken = [];
    const known = (face) => face.dataset.state === "known";
    for (const face of [...this.faces.children].sort((one, other) => known(other) - known(one))) {
      const label = face.firstElementChild;
      const fits = [false, true].some((below) => {
        face.classList.toggle("below", below);
        const area = label.getBoundingClientRect();
        return !(below && area.bottom > picture.bottom) && !taken.some((other) => area.left < other.right
          && other.left < area.right && area.top < other.bottom && other.top < area.bottom);
      });
      if (!fits) face.classList.remove("below");
      face.classList.toggle("covered", !fits && !known(face));
      if (fits || known(face)) taken.push(label.getBoundingClientRect());
    }
  }

  tell(source, rate) {
    this.state = source.state;
    this.label.dataset.state = source.state;
    const size = source.size ? `${source.size[0]} × ${source.size[1]}` : "";
    setText(this.detail, [size, source.in_view && source.state === "running" ? `${source.in_view} in view` : ""].filter(Boolean).join(" · "));
    setText(this.rate, source.state === "running" && rate !== null ? `${rate.toFixed(rate < 10 ? 1 : 0)} frames/s` : "");
    const shown = source.state !== "running" || !this.version;
    this.message.hidden = !shown;
    setText(this.message, source.error ?? WORDS[source.state] ?? WORDS.waiting);
    if (source.state !== "running") this.faces.replaceChildren();
  }
}

const cameras = [];
const rates = [];

export function showCameras(state) {
  state.sources.forEach((source, number) => {
    if (!cameras[number]) {
      cameras[number] = new Camera(number, source.name);
      $("cameras").append(cameras[number].element);
    }
    const marks = (rates[number] ??= []);
    marks.push([state.now, source.frames]);
    while (marks.length > 1 && state.now - marks[0][0] > 4) marks.shift();
    const [since, frames] = marks[0];
    const rate = state.now - since >= 1 ? Math.max(0, source.frames - frames) / (state.now - since) : null;
    cameras[number].tell(source, rate);
  });
}
