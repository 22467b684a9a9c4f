// The live page: takes frames from the server and shows them, in place. What the reader has chosen (zoom,
// legend, rows, open details, scroll) is never touched by a frame. Texts of a campaign are never HTML.
"use strict";
(() => {
  const { make, say, whole, short, span, clock, percent, brief, escape, fill, keyed, stateWords, targetWords, moved } = pageParts;
  const element = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const themeName = () => (dark.matches ? "dark" : "light");
  const SILENCE = 15000; // ms without a sign of life after which the server counts as gone
  const SPOKEN = 60000; // ms between two announcements to a screen reader

  // -- what is chosen: kept in the address, so that a reload keeps it

  const kept = new URLSearchParams(location.hash.slice(1));
  let row = (kept.get("row") || "").split(".").filter((part) => /^\d{1,7}$/.test(part)).map(Number);
  let sizeShown = kept.get("size") ?? "all";
  const keep = () => history.replaceState(null, "", `#row=${row.join(".")}&size=${sizeShown}`);

  // -- the connection: an EventSource, and a watchdog for a laptop that slept or a line that was cut

  let frame = null;
  let source = null;
  let [heard, tried, last] = [0, 0, ""]; // when the server was heard and called, and the number of its last event
  let lostSince = null;

  function hear() {
    heard = Date.now();
    if (lostSince !== null) announce("connected again", true);
    lostSince = null;
    link();
  }
  function link() {
    const place = element("link");
    place.classList.toggle("lost", lostSince !== null);
    say(place, lostSince === null ? "live" : `disconnected since ${new Date(lostSince).toLocaleTimeString("en-GB")}`);
  }
  function lose() {
    if (lostSince === null) lostSince = heard || Date.now();
    link();
  }
  function connect() {
    if (source) source.close();
    tried = Date.now();
    const opened = new EventSource(`events?row=${row.join(".")}&last=${encodeURIComponent(last)}`);
    source = opened;
    opened.addEventListener("frame", (event) => {
      if (opened !== source) return;
      hear();
      const [boot, number] = event.lastEventId.split("-");
      const [knownBoot, known] = last.split("-");
      if (boot === knownBoot && Number(number) <= Number(known)) return; // older than what is shown
      last = event.lastEventId;
      frame = JSON.parse(event.data);
      if (!document.hidden) show();
    });
    opened.addEventListener("alive", () => { if (opened === source) hear(); });
    opened.addEventListener("error", () => { if (opened === source) lose(); });
  }
  function check() {
    if (document.hidden) return;
    const now = Date.now();
    if (heard && now - heard > SILENCE) lose();
    if (lostSince !== null && now - tried > 3000) connect();
  }
  setInterval(check, 1000);
  addEventListener("online", check);
  // A page that nobody sees holds no connection: a browser has six to a server, for all its tabs.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
      return;
    }
    heard = Date.now();
    connect();
    if (frame) show();
  });

  // -- announcements for screen readers: rare, except for what changes everything

  let spoken = 0;
  function announce(text, now = false) {
    if (!now && Date.now() - spoken < SPOKEN) return;
    spoken = Date.now();
    say(element("said"), text);
  }

  // -- figures: drawn again only if their numbers, the colours or the width have changed

  const drawn = new Map();
  function draw(place, title, traces, layout, choice) {
    const theme = figureLook.themes[themeName()];
    const size = { width: place.clientWidth, height: place.clientHeight };
    if (!size.width) return;
    const state = JSON.stringify([traces, layout, size, themeName(), choice]);
    if (drawn.get(place) === state) return;
    drawn.set(place, state);
    place.setAttribute("aria-label", title);
    const all = figureLook.layout(theme, size, coarse, choice, layout);
    const config = figureLook.config(coarse, size.width);
    Plotly.react(place, traces, all, config);
  }

  // -- parts of the page

  let stateBefore = "";
  function head() {
    document.title = `${frame.state === "absent" ? "waiting" : percent(frame.done, frame.cells)} ${frame.name}`;
    say(element("name"), frame.name);
    say(element("store"), frame.store);
    const place = element("state");
    place.className = frame.silent ? "silent" : frame.state;
    say(place, stateWords(frame));
    const state = frame.silent ? "silent" : frame.state;
    if (stateBefore && state !== stateBefore) announce(stateWords(frame), true);
    stateBefore = state;
  }

  function tiles() {
    const parts = [
      [percent(frame.done, frame.cells), "done"],
      [`${whole(frame.done)} of ${whole(frame.cells)}`, "cells"],
      [whole(frame.failed), "failed", frame.failed ? "bad" : ""],
      [whole(frame.missing), "missing"],
      [frame.rate === null ? "–" : `${short(frame.rate)}/s`, "rate of five minutes"],
      [frame.cores === null ? "–" : short(frame.cores, 2), "cores at work"],
      [frame.missing ? (frame.eta_seconds === null ? "–" : span(frame.eta_seconds)) : "none", "time left"],
      [frame.core_hours_left === null ? "unknown" : short(frame.core_hours_left), "core-hours left"],
    ];
    keyed(element("tiles"), parts, ([, words]) => words,
      ([, words]) => make("div", { className: "tile" }, make("b"), make("span", { textContent: words })),
      (tile, [value, , bad]) => { tile.classList.toggle("bad", Boolean(bad)); say(tile.firstChild, value); });
    const axis = frame.axes.size;
    say(element("size-head"), axis ? axis.name : "size");
    fill(element("sizes-table"), frame.size_rows.map((at, k) => [
      axis ? axis.texts[k] : "all", whole(at.cells), whole(at.done), whole(at.failed), whole(at.missing),
      short(at.seconds_per_cell), span(at.core_seconds_left), { max: Math.max(1, at.cells), value: at.done },
    ]));
    announce(`${percent(frame.done, frame.cells)} done, ${whole(frame.failed)} failed`);
  }

  function problems() {
    element("problems").hidden = !frame.problems.length;
    keyed(element("problems-list"), frame.problems, ({ path }) => path, () => make("li", { className: "problem" }),
      (line, { path, why }) => say(line, `${path}: ${why}`));
  }

  // Selects for the row and the size; built again only if the axes have changed.
  let axesShown = "";
  let rowsShown = null;
  function chooser() {
    const { rows, size } = frame.axes;
    const state = JSON.stringify([rows, size]);
    if (state !== axesShown) {
      axesShown = state;
      if (sizeShown !== "all" && (!size || !size.texts.includes(sizeShown))) sizeShown = "all";
      const selects = rows.map((axis, k) => ({ axis, k })).filter(({ axis }) => axis.values.length > 1).map(({ axis, k }) => {
        const select = make("select", { id: `choose-${axis.name}` }, ...axis.texts.map((text, at) => make("option", { value: at, textContent: text })));
        select.value = Math.min(row[k] ?? 0, axis.texts.length - 1);
        select.addEventListener("change", () => watchRow(rows.map((_, place) => (place === k ? Number(select.value) : (frame.row ? frame.row.index : row)[place] ?? 0))));
        return make("label", { title: axis.long_name }, `${axis.name} `, select);
      });
      if (size && size.values.length > 1) {
        const select = make("select", { id: "choose-size" }, make("option", { value: "all", textContent: "all" }),
          ...size.texts.map((text) => make("option", { value: text, textContent: text })));
        select.value = sizeShown;
        select.addEventListener("change", () => { sizeShown = select.value; keep(); map(); });
        selects.push(make("label", { title: "in the map" }, `${size.name} in the map `, select));
      }
      element("chooser").replaceChildren(...selects);
      element("chooser").hidden = !selects.length;
    }
  }
  function watchRow(next) {
    row = next;
    frame.axes.rows.forEach((axis, k) => { const select = element(`choose-${axis.name}`); if (select) select.value = row[k]; });
    keep();
    last = "";
    connect();
  }
  const placesOf = (index) => { // of a row of the map, along each of its dimensions, the last the fastest
    let rest = index;
    return frame.axes.rows.map((axis) => axis.values.length).reverse().map((n) => { const at = rest % n; rest = Math.floor(rest / n); return at; }).reverse();
  };
  const varying = () => frame.axes.rows.map((axis, k) => ({ axis, k })).filter(({ axis }) => axis.values.length > 1 || frame.axes.rows.length === 1);
  const rowName = (index) => {
    const places = placesOf(index);
    return varying().map(({ axis, k }) => `${axis.name} = ${axis.texts[places[k]]}`).join(", ") || "all";
  };
  const rowKey = () => frame.axes.rows.map((axis, k) => `${axis.name} = ${axis.texts[frame.row ? frame.row.index[k] : 0]}`).join(", ");
  const rowIndex = () => frame.axes.rows.reduce((sum, axis, k) => sum * axis.values.length + (frame.row ? frame.row.index[k] : 0), 0);

  function map() {
    const { rows, columns, merged, sizes } = frame.map;
    const axis = frame.axes.columns;
    const texts = axis ? axis.texts : ["all"];
    const wantedSize = sizeShown === "all" ? -1 : frame.axes.size.texts.indexOf(sizeShown);
    const used = wantedSize < 0 ? sizes : [sizes[wantedSize]];
    const sum = (kind, at) => used.reduce((total, of) => total + of[kind][at], 0);
    const names = Array.from({ length: rows }, (_, i) => (merged > 1 ? `${rowName(i * merged)} and ${merged - 1} more` : rowName(i)));
    const z = []; const words = []; const bad = { x: [], y: [], text: [] }; const totals = [];
    for (let i = 0; i < rows; i += 1) {
      const [shares, says, total] = [[], [], [0, 0, 0]];
      for (let k = 0; k < columns; k += 1) {
        const [done, failed, wanted] = ["done", "failed", "wanted"].map((kind) => sum(kind, i * columns + k));
        shares.push(wanted ? done / wanted : null);
        const at = `${names[i]}${axis ? `, ${axis.name} = ${texts[k]}` : ""}`;
        says.push(wanted ? `${escape(at)}<br>${done} of ${wanted} done, ${failed} failed, ${wanted - done - failed} missing` : `${escape(at)}<br>never asked for`);
        if (failed) { bad.x.push(k); bad.y.push(i); bad.text.push(says[k]); }
        [wanted, done, failed].forEach((value, part) => { total[part] += value; });
      }
      z.push(shares); words.push(says); totals.push(total);
    }
    const colours = getComputedStyle(document.documentElement);
    const [missing, part, full] = ["--missing", "--part", "--whole"].map((name) => colours.getPropertyValue(name).trim());
    const theme = figureLook.themes[themeName()];
    const gap = rows * columns < 3000 ? 1 : 0;
    const tick = (n, most) => Array.from({ length: n }, (_, k) => k).filter((k) => k % Math.ceil(n / most) === 0);
    const place = element("map");
    const most = Math.max(2, Math.floor(place.clientWidth / 70));
    const [across, up] = [tick(columns, most), tick(rows, 24)];
    const parts = varying();
    const each = Math.max(8, Math.floor(22 / Math.max(1, parts.length))); // of a label, for each of its values
    const valuesOf = (index) => { const places = placesOf(index); return parts.map(({ axis: of, k }) => brief(of.texts[places[k]], each)).join(", "); };
    const chosen = Math.floor(rowIndex() / merged);
    place.style.height = `${Math.max(150, Math.min(640, 90 + rows * Math.max(16, Math.min(34, 400 / rows))))}px`;
    draw(place, `Coverage: ${whole(frame.done)} of ${whole(frame.cells)} cells done. The numbers stand in the table below.`, [
      {
        type: "heatmap", z, text: words, hoverinfo: "text", zmin: 0, zmax: 1, showscale: false, xgap: gap, ygap: gap, hoverongaps: true,
        colorscale: [[0, missing], [0.001, part], [0.999, part], [1, full]].map(([at, colour]) => [at, colour]),
      },
      { type: "scatter", mode: "markers", ...bad, hoverinfo: "text", showlegend: false, marker: { symbol: "x-thin", size: 8, line: { width: 2, color: theme.threshold } } },
    ], {
      margin: { t: 8, r: 14 },
      xaxis: { title: { text: axis ? escape(axis.long_name === axis.name || place.clientWidth < 7 * axis.long_name.length + 150 ? axis.name : `${axis.long_name} (${axis.name})`) : "" }, tickvals: across, ticktext: across.map((k) => escape(brief(axis && typeof axis.values[k] === "number" ? short(axis.values[k], 4) : texts[k], 22))), range: [-0.5, columns - 0.5], showgrid: false },
      yaxis: { title: { text: escape(brief(parts.map(({ axis: of }) => of.name).join(", "), 22)), standoff: 12 }, tickvals: up, ticktext: up.map((i) => escape(valuesOf(i * merged))), range: [rows - 0.5, -0.5], showgrid: false },
      shapes: rows > 1 ? [{ type: "rect", x0: -0.5, x1: columns - 0.5, y0: chosen - 0.5, y1: chosen + 0.5, line: { color: theme.ink, width: 1.5 }, fillcolor: "rgba(0,0,0,0)" }] : [],
    }, `map ${sizeShown} ${rows} ${columns}`);
    if (!place.dataset.clicks && place.on) {
      place.dataset.clicks = "yes";
      place.on("plotly_click", ({ points }) => watchRow(placesOf(points[0].y * frame.map.merged)));
    }
    const more = merged > 1 ? ` Each row adds up ${merged} models.` : "";
    say(element("map-words"), `${rows > 1 ? "The framed row is the one shown below; a click on another shows that one." : ""}${more}`);
    const listed = totals.slice(0, 200).map(([wanted, done, failed], i) => [names[i], ...[wanted, done, failed, wanted - done - failed].map(whole)]);
    fill(element("map-rows"), listed);
  }

  function curves() {
    const { row: watched, axes } = frame;
    const places = element("curves-figures");
    const variables = watched ? watched.variables : [];
    let words = `${rowName(rowIndex())}: mean over the seeds that are done, and its standard error.`;
    if (!watched) words = "The cells cannot be read at present.";
    else if (watched.too_large) words = `This row has too many cells to be held in memory (${short(watched.too_large / 2 ** 20)} MiB): the dataset gives their means.`;
    else if (watched.tiles_left) words += ` ${whole(watched.tiles_left)} tiles are still to be read.`;
    say(element("curves-words"), words);
    const sized = axes.size && axes.size.values.length > 1;
    const columns = axes.columns && (axes.columns.values.length > 1 || !sized) ? axes.columns : null;
    const across = columns || axes.size;
    const lines = figureLook.lines[themeName()];
    keyed(places, variables, ({ name }) => name,
      ({ name, long_name }) => make("figure", {}, make("div", { className: "drawn" }), make("figcaption", {}, make("b", { textContent: name }), ` ${long_name}`)),
      (figure, variable) => {
        figure.firstChild.setAttribute("role", "img");
        const numbers = columns ? columns.values : axes.size ? axes.size.values : ["all"];
        const series = columns || !axes.size ? variable.sizes
          : [{ mean: variable.sizes.map((of) => of.mean[0]), error: variable.sizes.map((of) => of.error[0]), n: variable.sizes.map((of) => of.n[0]) }];
        const names = columns && axes.size ? axes.size.texts.map((text) => `${axes.size.name} = ${text}`) : ["all"];
        const traces = series.map((of, k) => ({
          type: "scatter", mode: "lines+markers", name: escape(names[k]), uid: `${variable.name} ${names[k]}`, x: numbers.map((x) => (typeof x === "string" ? escape(x) : x)), y: of.mean,
          line: { color: lines[k % lines.length], width: 1 }, marker: { color: lines[k % lines.length], size: 5 }, connectgaps: true,
          error_y: { type: "data", array: of.error, color: lines[k % lines.length], thickness: 1.2, width: 0 }, hoverinfo: "text",
          text: of.mean.map((mean, i) => `${escape(names[k])}${across ? `, ${escape(across.name)} = ${escape(across.texts[i])}` : ""}<br><b>${short(mean, 5)} ± ${short(of.error[i], 2)}</b>, ${of.n[i]} seeds`),
        }));
        const textual = numbers.some((x) => typeof x === "string");
        draw(figure.firstChild, `${variable.long_name} against ${across ? across.long_name : "nothing"}. The numbers stand in the table below the figures.`, traces, {
          showlegend: series.length > 1, margin: { t: series.length > 1 ? 54 : 14 },
          xaxis: { title: { text: across ? escape(across.name) : "" }, ...(textual ? { type: "category" } : {}) },
          yaxis: { title: { text: variable.units === "1" ? "" : escape(variable.units) }, exponentformat: "power" },
        }, `${variable.name} ${rowKey()}`);
      });
    if (element("curves-table").open) meansTable();
    say(element("means-size"), axes.size ? axes.size.name : "size");
    say(element("means-at"), axes.columns ? axes.columns.name : "at");
  }
  function meansTable() {
    const { row: watched, axes } = frame;
    const rows = (watched ? watched.variables : []).flatMap((variable) => variable.sizes.flatMap((of, k) => of.mean.map((mean, i) => (
      of.n[i] ? [variable.name, axes.size ? axes.size.texts[k] : "all", axes.columns ? axes.columns.texts[i] : "all", short(mean, 6), short(of.error[i], 2), of.n[i]] : null
    )).filter(Boolean)));
    fill(element("means-rows"), rows.slice(0, 2000));
  }

  function estimates() {
    const found = frame.row && frame.row.estimates;
    const failed = found ? Object.entries(found.failed) : [];
    element("estimates").hidden = !found || !(found.tables.length || failed.length);
    if (!found) return;
    say(element("estimates-words"), [`Of ${rowName(rowIndex())}, from the cells that are done; a little behind them, since an analysis takes a while.`, ...failed.map(([name, why]) => `${name}: ${why}.`)].join(" "));
    keyed(element("estimates-tables"), found.tables, ({ title }) => title,
      ({ title, columns }) => make("div", {}, make("h3", { textContent: title }), make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: title },
        make("table", {}, make("thead", {}, make("tr", {}, ...columns.map((text) => make("th", { textContent: text })))), make("tbody")))),
      (place, { rows }) => fill(place.querySelector("tbody"), rows));
    const numbers = found.figures;
    const names = numbers ? ["overlap", "eigenvalue", "scaled"] : [];
    const view = numbers && { chosen: () => numbers.models[0], shown: () => numbers.models[0].sizes, themeName };
    const network = numbers && networkFigures(numbers, view);
    keyed(element("network-figures"), names, (name) => name,
      (name) => make("figure", {}, make("div", { className: "drawn", role: "img" }), make("figcaption", { textContent: network.titles[name] })),
      (figure, name) => {
        const { traces, layout } = network.figures[name](figureLook.themes[themeName()]);
        // Without the checkboxes of a report the legend tells the sizes apart.
        const told = traces.map((trace) => (trace.mode === "markers" ? { ...trace, showlegend: true } : { ...trace, showlegend: trace.showlegend ?? false }));
        draw(figure.firstChild, `${network.titles[name]}, ${network.nameOf(numbers.models[0])}, with theory.`, told, layout, `${name} ${rowKey()}`);
      });
  }

  function rounds() {
    element("rounds").hidden = !frame.rounds.length;
    if (!frame.rounds.length) return;
    const words = { open: "goes on", met: "target met", unreachable: "target unreachable" };
    fill(element("rounds-rows"), frame.rounds.map((of) => [
      of.number, clock(of.recorded), short(of.core_seconds / 3600), of.counts.met, of.counts.open, of.counts.unreachable,
      of.points, short(of.core_hours), words[of.outcome] || of.outcome,
    ]));
    const newest = frame.rounds[frame.rounds.length - 1];
    say(element("rounds-words"), `Target: ${targetWords(newest.target)}. The models, as of round ${newest.number}:`);
    const name = (model) => Object.entries(model).map(([axis, value]) => `${axis} = ${value}`).join(", ") || "the model";
    fill(element("rounds-models"), newest.models.map((of) => [
      name(of.model), of.state, short(of.value, 6), short(of.error, 2), short(of.wanted, 2), short(of.expected, 2), short(of.core_hours), of.reason,
    ]));
  }

  function failures() {
    const { total, listed } = frame.failures;
    const more = total > listed.length ? ` The first ${listed.length} are listed; bendscape errors lists all.` : "";
    say(element("failures-words"), total ? `${whole(total)} ${total === 1 ? "cell has" : "cells have"} failed.${more}` : "None.");
    const at = (failure) => Object.entries(failure.at).map(([name, value]) => `${name} = ${value}`).join(", ");
    keyed(element("failures-list"), listed, ({ key }) => key,
      () => {
        const place = make("details", { ontoggle: () => traceback(place) }, make("summary", {}, make("code"), make("span")), make("pre"));
        return place;
      },
      (place, failure) => {
        say(place.querySelector("code"), failure.error);
        say(place.querySelector("span"), ` at ${at(failure)}: ${brief(failure.message, 200)}`);
        place.head = `attempt ${failure.attempts} on ${failure.host}\n${failure.message}`;
        if (place.shown !== place.head) traceback(place);
      });
  }

  // The traceback of a failed cell, when its details are open; asked for again when the cell has failed again.
  async function traceback(place) {
    const { head } = place;
    if (!place.open || place.shown === head) return;
    place.shown = head;
    const words = place.querySelector("pre");
    say(words, head);
    try {
      const answer = await fetch(`traceback?key=${encodeURIComponent(place.dataset.key)}`);
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (place.shown === head) say(words, `${head}\n\n${text}`);
    } catch {
      if (place.shown !== head) return;
      place.shown = undefined; // the next frame, or opening it again, asks anew
      say(words, `${head}\n\nThe traceback did not come; bendscape errors prints it.`);
    }
  }

  function work() {
    const { history, hosts, runs } = frame;
    element("history").parentElement.hidden = !history;
    if (history) {
      const times = history.rate.map((_, k) => new Date((history.start + (k + 0.5) * history.width) * 1000).toISOString());
      const local = times.map((time) => { const at = new Date(time); return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, -1); });
      draw(element("history"), `Cells a second since the latest run began, at most ${short(Math.max(...history.rate))}.`, [
        { type: "bar", x: local, y: history.rate, width: history.width * 1000, marker: { color: figureLook.lines[themeName()][0], line: { width: 0 } }, hovertemplate: "%{x|%H:%M:%S}<br>%{y:.3g} cells/s<extra></extra>" },
      ], { margin: { t: 10 }, bargap: 0, xaxis: { type: "date", showgrid: false }, yaxis: { title: { text: "cells/s" }, rangemode: "tozero" } }, `history ${history.start}`);
      say(element("history-words"), `Cells a second since the latest run began, in bins of ${span(history.width)}.`);
    }
    element("hosts").hidden = !hosts.length;
    fill(element("hosts-rows"), hosts.map((of) => [of.host, short(of.cores), whole(of.cells)]));
    fill(element("runs-rows"), runs.map((run) => [run.epoch, run.host, clock(run.started), clock(run.ended), [run.outcome || "ended", run.reason].filter(Boolean).join(", "), whole(run.cells), short(run.core_seconds / 3600)]));
    say(element("campaign-text"), frame.about.campaign);
  }

  function show() {
    head();
    document.querySelector("main").hidden = frame.state === "absent";
    if (frame.state !== "absent") {
      const next = moved(rowsShown, frame.axes.rows, row);
      rowsShown = frame.axes.rows;
      if (next) return watchRow(next); // its frame is on its way
      for (const part of [tiles, problems, chooser, map, curves, estimates, rounds, failures, work]) part();
    }
    document.documentElement.setAttribute("data-shown", last);
  }

  element("chooser").addEventListener("submit", (event) => event.preventDefault());
  element("curves-table").addEventListener("toggle", () => { if (frame) meansTable(); });
  dark.addEventListener("change", () => { if (frame) show(); });
  let resized = 0;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => { if (frame) show(); }, 100);
  });
  const wide = new ResizeObserver((seen) => {
    for (const { target } of seen) target.classList.toggle("wider", target.scrollWidth > target.clientWidth + 1);
  });
  for (const table of document.querySelectorAll(".scroll")) wide.observe(table);
  say(element("link"), "connecting");
  if (!document.hidden) connect();
})();
