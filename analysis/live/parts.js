// What the live page is made of: elements, numbers and times in words, tables and lists that change in place.
// Texts are set as text, never as HTML.
"use strict";
const pageParts = (() => {
  const make = (tag, more = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), more);
    made.append(...inside);
    return made;
  };
  const say = (place, text) => { if (place.textContent !== text) place.textContent = text; };

  // -- numbers and times in words

  const whole = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
  const short = (value, digits = 3) => (value === null || value === undefined ? "–"
    : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(digits - 1)
      : String(Number(value.toPrecision(digits))));
  const span = (seconds) => {
    if (seconds === null || seconds === undefined) return "unknown";
    const s = Math.round(seconds);
    const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
    return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
  };
  const clock = (time) => (time ? new Date(time * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : "–");
  const percent = (part, all) => (all ? `${(Math.floor((1000 * part) / all) / 10).toFixed(1)} %` : "–");

  const brief = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  // Plotly reads a few tags in its texts; those of a campaign are shown as they are.
  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // -- tables and lists, changed in place

  function fill(body, rows) {
    while (body.rows.length > rows.length) body.lastElementChild.remove();
    rows.forEach((cells, i) => {
      const line = body.rows[i] || body.appendChild(make("tr"));
      while (line.cells.length > cells.length) line.lastElementChild.remove();
      cells.forEach((cell, k) => {
        const place = line.cells[k] || line.appendChild(make("td"));
        if (typeof cell !== "object") return say(place, String(cell));
        const bar = place.querySelector("progress") || place.appendChild(make("progress"));
        Object.assign(bar, cell);
        bar.setAttribute("aria-label", "share done");
      });
    });
  }
  function keyed(list, items, key, create, update) {
    const there = new Map([...list.children].map((child) => [child.dataset.key, child]));
    const now = items.map((item, i) => {
      let child = there.get(key(item));
      there.delete(key(item));
      if (!child) {
        child = create(item);
        child.dataset.key = key(item);
      }
      if (list.children[i] !== child) list.insertBefore(child, list.children[i] || null);
      return child;
    });
    for (const child of there.values()) child.remove();
    items.forEach((item, i) => update(now[i], item)); // once all have their places, and so their widths
  }

  // -- what a frame says in words, and the chosen row

  const STATES = {
    absent: "There is no store here yet. This page waits for it.",
    empty: "Nothing has been computed yet, and no run is at work.",
    stopped: "No run is at work, and cells are missing: the same command resumes.",
    complete: "Complete.",
    "failed cells": "Complete but for failed cells.",
  };
  function stateWords(frame) {
    const { holder } = frame;
    if (frame.silent) return `The store cannot be read: ${frame.silent}`;
    if (frame.state === "at work") return `A run is at work: process ${holder.pid} of ${holder.user} on ${holder.host}, since ${clock(holder.started)}.`;
    if (frame.state === "dead") {
      const seen = holder.seen ? `; its last heartbeat was at ${clock(holder.seen)}` : "";
      return `The run has died: process ${holder.pid} of ${holder.user} on ${holder.host}${seen}. The same command resumes.`;
    }
    const run = frame.runs && frame.runs[0];
    const newest = frame.rounds && frame.rounds[frame.rounds.length - 1];
    // A run that ends for its target says why; one that died before it could, left it in the last round.
    const given = run && run.outcome === "target unreachable" ? run.reason : newest && newest.outcome === "unreachable" && frame.state !== "stopped" ? newest.reasons.join("; ") : "";
    if (given) return `${frame.state === "stopped" ? "No run is at work, and cells are missing." : STATES[frame.state]} The target is unreachable: ${given}.`;
    const ended = run && run.reason && frame.state === "stopped" ? ` The last run ended with: ${run.outcome}, ${run.reason}.` : "";
    return STATES[frame.state] + ended;
  }
  function targetWords({ quantity, precision, models, core_hours: hours }) {
    const error = precision ? Object.entries(precision).map(([kind, value]) => ` with a standard error of ${value}, ${kind}`).join("") : "";
    const some = models && models.length ? ", some models with one of their own" : "";
    return `${quantity}${error}${some}${hours ? `, within ${short(hours)} core-hours` : ""}`;
  }
  // Where an extension has put the chosen row: the same values, at other indices. Null if it has not moved.
  function moved(known, rows, row) {
    if (!known) return null;
    const at = (index, axis) => Math.min(index ?? 0, axis.texts.length - 1);
    const next = rows.map((axis) => {
      const k = known.findIndex(({ name }) => name === axis.name);
      return k < 0 ? 0 : Math.max(0, axis.texts.indexOf(known[k].texts[at(row[k], known[k])]));
    });
    return next.some((index, k) => index !== at(row[k], rows[k])) ? next : null;
  }

  return { make, say, whole, short, span, clock, percent, brief, escape, fill, keyed, stateWords, targetWords, moved };
})();
