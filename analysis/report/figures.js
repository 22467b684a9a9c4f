// What figures look like, and the figures of the network as traces and layouts for Plotly: for reports and
// for the live page. Draws nothing itself.
"use strict";
const figureLook = {
  themes: {
    light: { ink: "#1d2126", soft: "#59626c", grid: "#e7eaee", threshold: "#b3261e", card: "#ffffff" },
    dark: { ink: "#e6e8eb", soft: "#a2abb5", grid: "#2c323a", threshold: "#ff8a80", card: "#1f2328" },
  },
  lines: {
    light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#5b4ea3"],
    dark: ["#56b4e9", "#ff9e4a", "#2fd6a3", "#e8a5cb", "#f0e442", "#9ec9ff", "#b3a6f5"],
  },
  layout(theme, size, coarse, uirevision, layout) {
    const axis = { gridcolor: theme.grid, linecolor: theme.soft, zeroline: false, ticks: "outside", tickcolor: theme.soft, automargin: true };
    return {
      ...size, autosize: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 13, color: theme.ink }, hovermode: "closest", dragmode: coarse ? false : "zoom",
      hoverlabel: { align: "left", bgcolor: theme.card, bordercolor: theme.soft, font: { color: theme.ink } },
      legend: { orientation: "h", x: 0, yref: "container", y: 1, yanchor: "top" }, uirevision, ...layout,
      margin: { l: 58, r: 14, t: 54, b: 46, ...layout.margin },
      xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
    };
  },
  config(coarse, width) {
    const narrow = 480; // pixels below which a mode bar would lie over the legend
    return { displaylogo: false, displayModeBar: coarse || width < narrow ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  },
};

// `numbers` is what analysis/report/figures.py makes; `view` tells what is chosen: `chosen` (a model), `shown`
// (those of its sizes that are drawn) and `themeName`.
function networkFigures(numbers, view) {
  const { models, critical, sizes } = numbers;
  const colourOf = (N) => numbers.colours[view.themeName()][sizes.indexOf(N)];
  const thousands = (number) => number.toLocaleString("en-GB");
  const digits = (value, n = 4) => (value === null || value === undefined ? "–" : value.toFixed(n));
  const withError = (value, error) => (error === null ? digits(value) : `${digits(value)} ± ${digits(error)}`);
  const pull = (value, error, theory) =>
    error > 0 && theory !== null ? `${((value - theory) / error).toFixed(1)} σ` : "–";
  const nameOf = (model) => `p = ${model.p}, p* = ${model.p_star}, a = ${model.a}`;

  // What hovering over a point says, and the rows of the table of numbers: one place for both.
  function pointOf(size, i, what) {
    const [value, error] = [size[what][i], size[`${what}_error`][i]];
    const theory = size[`${what}_N`][i];
    return {
      N: thousands(size.N), alpha: digits(size.alpha[i]), mean: withError(value, error), seeds: thousands(size.seeds[i]),
      theory: digits(theory), pull: pull(value, error, theory), limit: digits(size[`${what}_limit`][i]),
    };
  }
  function hover(size, i, what) {
    const at = pointOf(size, i, what);
    const lowest = what === "overlap" && view.chosen().p * view.chosen().p_star > 1
      ? `<br>lowest alone: ${withError(size.lowest[i], size.lowest_error[i])}` : "";
    return `α = ${at.alpha}, N = ${at.N}<br><b>${at.mean}</b>, ${at.seeds} seeds${lowest}` +
      `<br>theory at N: ${at.theory} (${at.pull})<br>N → ∞: ${at.limit}`;
  }

  const points = (size, x, y, error, text, more = {}) => ({
    type: "scatter", mode: "markers", name: `N = ${thousands(size.N)}`, x, y, text, hoverinfo: "text", showlegend: false,
    marker: { color: colourOf(size.N), size: 6 },
    error_y: { type: "data", array: error, color: colourOf(size.N), thickness: 1.2, width: 0 }, ...more,
  });
  const curve = (name, x, y, colour, more = {}, line = {}) => ({
    type: "scatter", mode: "lines", name, x, y, hoverinfo: "skip", connectgaps: false,
    line: { color: colour, width: 2, ...line }, ...more,
  });

  function thresholds(theme) {
    const lines = [{ x: view.chosen().alpha_bbp, text: "α<sub>BBP</sub>", dash: "dash", colour: theme.threshold }];
    if (view.chosen().alpha_0 !== null) {
      lines.push({ x: view.chosen().alpha_0, text: "α<sub>0</sub>", dash: "dot", colour: theme.soft });
    }
    return {
      shapes: lines.map(({ x, dash, colour }) => (
        { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: colour, width: 1.2, dash } })),
      annotations: lines.map(({ x, text, colour }) => (
        { x, yref: "paper", y: 1, yanchor: "bottom", text, showarrow: false, font: { color: colour, size: 12 } })),
    };
  }

  function againstAlpha(what, title, theme, limits) {
    const traces = [];
    for (const size of view.shown()) {
      const [x, y] = size.curves[what];
      traces.push(curve(`theory, N = ${thousands(size.N)}`, x, y, colourOf(size.N), { showlegend: false }, { width: 1.1 }));
      const text = size.alpha.map((_, i) => hover(size, i, what));
      traces.push(points(size, size.alpha, size[what], size[`${what}_error`], text));
    }
    return { traces: [...limits, ...traces], layout: { xaxis: { title: { text: "α" } }, yaxis: { title: { text: title } }, ...thresholds(theme) } };
  }

  const figures = {
    overlap(theme) {
      const { alpha, overlap } = view.chosen().line;
      const jump = alpha.findIndex((x) => x > view.chosen().alpha_bbp); // a gap there: the limit may jump
      const [x, y] = jump > 0 ? [alpha.toSpliced(jump, 0, view.chosen().alpha_bbp), overlap.toSpliced(jump, 0, null)] : [alpha, overlap];
      const limit = curve("N → ∞", x, y, theme.ink);
      return againstAlpha("overlap", "squared overlap", theme, [limit]);
    },
    eigenvalue(theme) {
      const { alpha, edge, outlier } = view.chosen().line;
      return againstAlpha("eigenvalue", "lowest eigenvalue", theme, [
        curve("edge, N → ∞", alpha, edge, theme.soft), curve("outlier, N → ∞", alpha, outlier, theme.ink),
      ]);
    },
    critical(theme) {
      const palette = figureLook.lines[view.themeName()];
      const traces = [];
      critical.filter((at) => at.p_star === view.chosen().p_star).forEach((at, k) => {
        const colour = palette[k % palette.length];
        const name = `a = ${at.a}`;
        const look = { legendgroup: name, opacity: at.a === view.chosen().a ? 1 : 0.45 };
        const words = (what) => at.p.map((p, i) => `p = ${p}, ${name}: ${at.kind[i]}<br>${what === "alpha_bbp" ? "α<sub>BBP</sub>" : "α<sub>0</sub>"} = ${digits(at[what][i])}`);
        traces.push(curve(name, at.p, at.alpha_bbp, colour, { ...look, mode: "lines+markers", marker: { size: 4 }, hoverinfo: "text", text: words("alpha_bbp") }));
        traces.push(curve("α<sub>0</sub>", at.p, at.alpha_0, colour, { ...look, showlegend: false, hoverinfo: "text", text: words("alpha_0") }, { dash: "dot" }));
        const ends = [at.p[0] * 0.9, at.p.at(-1) * 1.1];
        traces.push(curve("p → ∞", ends, [at.limit, at.limit], colour, { ...look, showlegend: false }, { dash: "dash", width: 1 }));
        const found = models.filter((model) => model.p_star === at.p_star && model.a === at.a)
          .map((model) => [model, model.estimates.find((one) => one.trusted && one.value !== null && one.error !== null)])
          .filter(([, one]) => one);
        traces.push({
          ...points({ N: 0 }, found.map(([model]) => model.p), found.map(([, one]) => one.value), found.map(([, one]) => one.error),
            found.map(([model, one]) => `${nameOf(model)}<br>α<sub>c</sub> = <b>${digits(one.value)} ± ${digits(one.error)}</b> (${one.name})<br>` +
              `statistical ${digits(one.statistical)}, systematic ${digits(one.systematic)}<br>${one.verdict}`)),
          ...look, name: `${name}, measured`, marker: { color: colour, size: 9, symbol: "diamond" },
          error_y: { type: "data", array: found.map(([, one]) => one.error), color: colour, thickness: 1.5, width: 3 },
        });
      });
      const ticks = [...new Set(critical.flatMap((at) => at.p))].sort((x, y) => x - y);
      const few = ticks.filter((p) => ticks.length < 6 || Number.isInteger(Math.log2(p)));
      return { traces, layout: { xaxis: { title: { text: "p" }, type: "log", tickvals: few, ticktext: few.map(String) }, yaxis: { title: { text: "critical load" } } } };
    },
    scaled(theme) {
      const { w, Y, alpha_c, trusted } = view.chosen().scaled;
      const reach = Math.min(3, 1.1 * Math.max(1, ...view.chosen().sizes.flatMap((size) => size.w.map(Math.abs))));
      const inner = (at) => Math.abs(at) <= reach;
      const traces = [curve("theory", w.filter(inner), Y.filter((_, i) => inner(w[i])), theme.ink)];
      for (const size of view.shown()) {
        const keep = size.w.map((_, i) => i).filter((i) => inner(size.w[i]) && size.Y[i] !== null);
        const of = (column) => keep.map((i) => column[i]);
        const text = keep.map((i) => `${hover(size, i, "overlap")}<br>w = ${digits(size.w[i], 3)}, Y = ${digits(size.Y[i], 3)}`);
        traces.push(points(size, of(size.w), of(size.Y), of(size.Y_error), text));
      }
      const source = trusted ? "measured" : "theory's";
      const layout = {
        xaxis: { title: { text: `w = (α − α<sub>c</sub>) N<sup>1/3</sup> / width,  α<sub>c</sub> = ${digits(alpha_c)}, ${source}` } },
        yaxis: { title: { text: "N<sup>1/3</sup> squared overlap" }, rangemode: "tozero" },
      };
      return { traces, layout };
    },
  };
  const titles = {
    overlap: "Squared overlap against α", eigenvalue: "Lowest eigenvalue against α",
    critical: "Critical loads against p", scaled: "Scaled overlap of all sizes",
  };

  return { figures, titles, digits, withError, thousands, pointOf, nameOf, colourOf };
}
