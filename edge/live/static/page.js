// Listens to the camera's state and shows it; a lost connection is opened again for as long as the page is there.

import { $, plural, setText } from "./dom.js";
import { remember } from "./enrol.js";
import { showHealth, showStages } from "./health.js";
import { showPeople, showStrangers } from "./people.js";
import { showCameras } from "./video.js";

const SILENT = 5000; // milliseconds without a word after which the connection counts as lost
let run = null;
let ended = false;
let heard = performance.now();
let events = null;

function show(state) {
  heard = performance.now();
  // Sources, strangers and the page's own files may be others: begin anew, with no dialog about whom the last run saw.
  if (run !== null && run !== state.run) {
    events.close();
    location.reload();
    return;
  }
  run = state.run;
  ended = state.ended;
  remember(state);
  showCameras(state);
  showPeople(state);
  showStrangers(state);
  showStages(state);
  showHealth(state);
  const running = state.sources.filter((source) => source.state === "running").length;
  const all = state.sources.length;
  if (ended) status("ended", "Ended");
  else if (state.troubles.length) status("failed", plural(state.troubles.length, "trouble", "troubles"));
  else if (running === 0) status("waiting", "Waiting");
  else status("running", all === 1 ? "Live" : `${running} of ${all} live`);
  tell(ended ? "The run has ended. This page comes back by itself with the next one." : state.troubles.join("\n"));
}

function status(state, words) {
  $("status").dataset.state = state;
  setText($("status-text"), words);
}

function tell(words) {
  $("notice").hidden = !words;
  setText($("notice"), words);
}

function lost() {
  if (ended) return;
  status("failed", "Offline");
  tell("The connection to the camera is lost. Trying again…");
}

async function listen() {
  events?.close();
  heard = performance.now();
  events = new EventSource("/api/events");
  events.onmessage = (event) => show(JSON.parse(event.data));
  events.onerror = async () => {
    lost();
    if (events.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("/api/state").catch(() => null);
    if (answer?.status === 401) location.reload();
    else setTimeout(listen, 2000);
  };
}

// A phone that slept, or a network that vanished, leaves a connection that looks alive.
setInterval(() => {
  if (!document.hidden && performance.now() - heard > SILENT) {
    lost();
    listen();
  }
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) events?.close();
  else listen();
});
listen();
