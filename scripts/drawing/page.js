"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F82D0"];
const ON_DARK = {"#0072B2": "#3b9ad9", "#8C6D31": "#b08d45"};  // what dark ground would swallow, lighter
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "pentagon"];
const STAGES = {estimate: "#56B4E9", select: "#E69F00", index: "#CC79A7", attend: "#0072B2", observe: "#009E73"};
const AXES = {
  attention: {field: "attention_s", name: "attention time", unit: " (s)", speedup: "speedup_attention"},
  ttft: {field: "ttft_s", name: "time to first token", unit: " (s)", speedup: "speedup_ttft"},
  density: {field: "density", name: "density", unit: " (computed share of causal pairs)"},
};
const byId = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const finite = (x) => x !== null && x !== undefined && Number.isFinite(x);
const tokensText = (n) => (n >= 1024 && n % 1024 === 0 ? `${n / 1024}K` : String(n));
const three = (x) => (finite(x) ? (x >= 100 ? x.toFixed(0) : x.toPrecision(3)) : "–");
const escapeHtml = (s) => String(s).replace(/[&<>"]/g, (c) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}[c]));

function element(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = text;
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}

// Panels of one model on one machine belong together.
const groups = [];
for (const panel of data.panels) {
  const title = `${panel.model} · ${panel.hardware_name}, ${panel.dtype}`;
  const key = [title, panel.model_sha256, panel.hardware].join("|");
  let group = groups.find((g) => g.key === key);
  if (!group) groups.push((group = {key, title, panels: []}));
  group.panels.push(panel);
}
for (const g of groups) g.panels.sort((a, b) => a.tokens - b.tokens);

// The same colours as in the PNG figures: contenders by name, bounds in grey, dense in the text colour.
const contenders = [...new Set(data.panels.flatMap((p) => p.points.filter((q) => !q.baseline).map((q) => q.method)))].filter((m) => m !== "random" && m !== "oracle").sort();
function look(point) {
  if (point.baseline) return {color: css("--dense"), symbol: "star"};
  if (point.method === "random") return {color: "#8a8a8a", symbol: "x-thin"};
  if (point.method === "oracle") return {color: "#8a8a8a", symbol: "star"};
  const i = contenders.indexOf(point.method);
  const color = PALETTE[i % PALETTE.length];
  const dark = document.documentElement.classList.contains("dark");
  return {color: (dark && ON_DARK[color]) || color, symbol: SYMBOLS[(i + Math.floor(i / PALETTE.length)) % SYMBOLS.length]};
}

const state = {group: 0, tokens: 0, task: 0, axis: "attention", sort: null, descending: false};
state.tokens = Math.max(0, (groups[0]?.panels.length ?? 1) - 1);
const currentGroup = () => groups[state.group];
const panelNow = () => currentGroup().panels[Math.min(state.tokens, currentGroup().panels.length - 1)];
const sliceNow = () => panelNow().slices[Math.min(state.task, panelNow().slices.length - 1)];
const taskText = (slice, panel) => slice.task || (panel.tasks.length > 1 ? `mean over ${panel.tasks.length} tasks` : panel.tasks[0]);

function choice(name, options, selected, pick) {
  const box = element("div", null, {class: "choice"});
  box.append(element("span", name));
  const inner = element("span", null, {class: "options", role: "group", "aria-label": name});
  options.forEach((text, i) => {
    const b = element("button", text, {type: "button", "aria-pressed": String(i === selected)});
    b.onclick = () => { pick(i); render(); };
    inner.append(b);
  });
  box.append(inner);
  return box;
}

function renderControls() {
  const nav = byId("controls");
  nav.replaceChildren();
  if (groups.length > 1) nav.append(choice("model and machine", groups.map((g) => g.title), state.group, (i) => { state.group = i; state.tokens = 0; }));
  const keys = Object.keys(AXES);
  nav.append(choice("score against", keys.map((k) => AXES[k].name), keys.indexOf(state.axis), (i) => (state.axis = keys[i])));
  nav.append(choice("tokens", currentGroup().panels.map((p) => tokensText(p.tokens)), currentGroup().panels.indexOf(panelNow()), (i) => (state.tokens = i)));
  if (panelNow().slices.length > 1) nav.append(choice("task", panelNow().slices.map((s) => s.task || "all"), panelNow().slices.indexOf(sliceNow()), (i) => (state.task = i)));
}

function interval(e, digits) {
  if (!finite(e.value)) return "–";
  const f = (x) => (digits === undefined ? three(x) : x.toFixed(digits));
  return finite(e.lo) ? `${f(e.value)} [${f(e.lo)}, ${f(e.hi)}]` : f(e.value);
}

function hover(point, s, axis) {
  const rows = [
    `<b>${escapeHtml(point.label)}</b>`, `score ${interval(s.score, scoreDigits(s.score))}, n = ${s.n}`,
    point.baseline ? "" : `to dense ${interval(s.score_vs_dense, scoreDigits(s.score_vs_dense))} ${s.verdict}`,
    `TTFT ${interval(s.ttft_s)} s` + (finite(s.speedup_ttft.value) ? `, ${s.speedup_ttft.value.toFixed(2)}× faster` : ""),
    `attention ${interval(s.attention_s)} s` + (finite(s.speedup_attention.value) ? `, ${s.speedup_attention.value.toFixed(2)}× faster` : ""),
    `density ${interval(s.density, 3)}`, s.frontier[axis],
    ...Object.entries(point.params).map(([k, v]) => `<i>${escapeHtml(k)}</i> = ${escapeHtml(typeof v === "string" ? v : JSON.stringify(v))}`),
    point.kernels.length ? `kernels ${escapeHtml(point.kernels.join(", "))}` : "",
  ];
  return rows.filter(Boolean).join("<br>");
}

function layout(extra) {
  const axis = {gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line"), automargin: true, ticks: "outside", tickcolor: css("--line")};
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: css("--text"), family: "system-ui, DejaVu Sans, sans-serif", size: 13},
    margin: {l: 60, r: 16, t: 12, b: 50}, hoverlabel: {align: "left"}, legend: {orientation: "v", x: 1.01, y: 0.94}, modebar: {bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent")}, ...extra,
    xaxis: {...axis, ...extra.xaxis}, yaxis: {...axis, ...extra.yaxis},
  };
}
const config = {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg"}, modeBarButtonsToRemove: ["select2d", "lasso2d"]};

// 1, 2, 5 per decade, or whole decades when there are many: written out, because plotly prints 0.5 as a small "5".
function logTicks(lo, hi) {
  const out = [];
  for (let d = Math.floor(Math.log10(lo)) - 1; d <= Math.ceil(Math.log10(hi)); d++)
    for (const m of hi / lo < 300 ? [1, 2, 5] : [1]) out.push(m * 10 ** d);
  return out;
}

const arrays = (list, center) => ({
  type: "data", symmetric: false, thickness: 1, width: 0,
  array: list.map((e) => (finite(e.hi) ? Math.max(0, e.hi - e.value) : 0)), arrayminus: list.map((e) => (finite(e.lo) ? Math.max(0, e.value - e.lo) : 0)),
});
const faded = (hex, alpha) => (hex.startsWith("#") && hex.length === 7 ? hex + Math.round(alpha * 255).toString(16).padStart(2, "0") : hex);

// Tasks that read a text have scores that differ by little.
const texts = new Set(data.positions.map((r) => r.task));
const readTasks = (slice, panel) => (slice.task ? [slice.task] : panel.tasks).every((t) => texts.has(t));

function renderPareto() {
  const panel = panelNow(), slice = sliceNow(), axis = AXES[state.axis];
  byId("pareto-title").textContent = `Score against ${axis.name}: ${tokensText(panel.tokens)} tokens, ${taskText(slice, panel)}`;
  const rows = panel.points.map((p, i) => ({p, s: slice.stats[i]})).filter((r) => finite(r.s.score.value) && finite(r.s[axis.field].value));
  const front = rows.filter((r) => r.s.frontier[state.axis] === "on the frontier").sort((a, b) => a.s[axis.field].value - b.s[axis.field].value);
  const traces = [{
    x: front.map((r) => r.s[axis.field].value), y: front.map((r) => r.s.score.value), mode: "lines", name: "frontier", hoverinfo: "skip",
    line: {color: css("--frontier"), width: 7}, opacity: 0.6,
  }];
  const named = new Set();
  for (const name of new Set(rows.map((r) => r.p.series))) {
    const line = rows.filter((r) => r.p.series === name).sort((a, b) => a.p.knob_value - b.p.knob_value);
    const {color, symbol} = look(line[0].p);
    const cls = (r) => r.s.frontier[state.axis];
    traces.push({
      x: line.map((r) => r.s[axis.field].value), y: line.map((r) => r.s.score.value), mode: "lines+markers+text", line: {color, width: 1.3},
      name: line[0].p.method + (line[0].p.knob ? ` (${line[0].p.knob})` : ""), legendgroup: line[0].p.method, showlegend: !named.has(line[0].p.method),
      text: line.map((r) => (rows.length <= 30 ? r.p.short_label : "")), textposition: "top center", textfont: {color, size: 11}, cliponaxis: false,
      marker: {
        symbol: line.map(() => symbol), size: line[0].p.baseline ? 16 : 11, line: {color, width: 1.8},
        color: line.map((r) => (cls(r) === "on the frontier" ? color : cls(r) === "within noise of it" ? faded(color, 0.45) : css("--card"))),
      },
      error_x: {...arrays(line.map((r) => r.s[axis.field])), color: faded(color, 0.4)}, error_y: {...arrays(line.map((r) => r.s.score)), color: faded(color, 0.4)},
      hovertext: line.map((r) => hover(r.p, r.s, state.axis)), hoverinfo: "text",
    });
    named.add(line[0].p.method);
  }
  const xs = rows.map((r) => r.s[axis.field].value);
  const log = xs.length > 1 && Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 5;
  const ticks = log ? logTicks(Math.min(...xs), Math.max(...xs)) : null;
  Plotly.react("pareto", traces, layout({
    xaxis: {title: {text: axis.name + axis.unit}, type: log ? "log" : "linear", ...(ticks && {tickvals: ticks, ticktext: ticks.map((v) => String(Number(v.toPrecision(2))))})},
    yaxis: {title: {text: "score"}, ...(readTasks(slice, panel) ? {autorange: true} : {range: [-0.05, 1.1]})},
  }), config);
}

const COLUMNS = [
  ["method", (p) => p.label], ["n", (p, s) => s.n], ["score", (p, s) => s.score.value], ["to dense", (p, s) => s.score_vs_dense.value],
  ["TTFT s", (p, s) => s.ttft_s.value], ["× faster", (p, s) => s.speedup_ttft.value], ["attention s", (p, s) => s.attention_s.value],
  ["× faster", (p, s) => s.speedup_attention.value], ["density", (p, s) => s.density.value], ["decode s", (p) => p.decode_s], ["device MB", (p) => p.device_peak_bytes && p.device_peak_bytes / 1e6],
  ["frontier", (p, s) => ["on the frontier", "within noise of it", "dominated", "not compared"].indexOf(s.frontier[state.axis])],
];

function cellOf(text, small, cls) {
  const td = element("td", text);
  if (cls) td.className = cls;
  if (small) { td.append(" "); td.append(element("small", small)); }
  return td;
}
const range = (e, f) => (finite(e.lo) ? `[${f(e.lo)}, ${f(e.hi)}]` : "");
const two = (x) => (finite(x) ? x.toFixed(2) : "–");
// As the terminal's table: a third decimal where the interval is narrow, or where the value is small and has none.
const scoreDigits = (e) => ((finite(e.lo) ? e.hi - e.lo < 0.03 && Math.abs(e.value) < 0.995 : e.value !== 0 && Math.abs(e.value) < 0.1) ? 3 : 2);
const scoreText = (e) => (finite(e.value) ? e.value.toFixed(scoreDigits(e)) : "–");

function renderTable() {
  const panel = panelNow(), slice = sliceNow();
  const table = byId("table");
  table.replaceChildren();
  const head = element("tr");
  COLUMNS.forEach(([name], i) => {
    const th = element("th", name, {...(name === "frontier" && {class: "text"}), ...(i === state.sort ? {"aria-sort": state.descending ? "descending" : "ascending"} : {})});
    th.onclick = () => { state.descending = state.sort === i ? !state.descending : i > 1; state.sort = i; renderTable(); };
    head.append(th);
  });
  const thead = element("thead"), body = element("tbody");
  thead.append(head);
  let rows = panel.points.map((p, i) => ({p, s: slice.stats[i]})).filter((r) => r.s.n > 0);
  if (state.sort !== null) {
    const value = COLUMNS[state.sort][1];
    rows = rows.sort((a, b) => {
      const x = value(a.p, a.s), y = value(b.p, b.s);
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (typeof x === "string" ? x.localeCompare(y) : x - y) * (state.descending ? -1 : 1);
    });
  }
  for (const {p, s} of rows) {
    const tr = element("tr", null, {title: Object.entries(p.params).map(([k, v]) => `${k} = ${JSON.stringify(v)}`).join("\n")});
    const name = element("td", null, {class: "text"});
    name.append(element("span", null, {class: "dot", style: `background:${look(p).color}`}), p.label);
    const mb = finite(p.device_peak_bytes) ? (p.device_peak_bytes / 1e6).toFixed(0) : "–";
    const difference = p.baseline || !finite(s.score_vs_dense.value) ? "–" : (s.score_vs_dense.value >= 0 ? "+" : "") + scoreText(s.score_vs_dense);
    tr.append(name, cellOf(s.n), cellOf(scoreText(s.score), range(s.score, (x) => x.toFixed(scoreDigits(s.score)))), cellOf(difference, p.baseline ? "" : s.verdict, p.baseline ? "" : s.verdict),
      cellOf(three(s.ttft_s.value), range(s.ttft_s, three)), cellOf(p.baseline ? "1" : two(s.speedup_ttft.value), range(s.speedup_ttft, two)),
      cellOf(three(s.attention_s.value), range(s.attention_s, three)), cellOf(p.baseline ? "1" : two(s.speedup_attention.value), range(s.speedup_attention, two)),
      cellOf(finite(s.density.value) ? s.density.value.toFixed(3) : "–"), cellOf(three(p.decode_s)), cellOf(mb), cellOf(s.frontier[state.axis], "", "text"));
    body.append(tr);
  }
  table.append(thead, body);
  const ties = byId("ties");
  ties.replaceChildren();
  panel.points.forEach((p, i) => {
    if (slice.stats[i].frontier.attention !== "within noise of it") return;
    const others = slice.stats[i].same_within_noise.filter((j) => slice.stats[j].frontier.attention === "on the frontier").map((j) => panel.points[j].label);
    if (others.length) ties.append(element("li", `within noise of each other (score and attention time): ${p.label} and ${others.join(", ")}`));
  });
}

function renderLatency() {
  const panels = currentGroup().panels;
  const axis = AXES[state.axis].speedup ? state.axis : "attention";
  byId("latency-section").hidden = panels.length < 2;
  if (panels.length < 2) return;
  byId("latency-title").textContent = `Speed-up over dense in ${AXES[axis].name}, by prompt length`;
  const lines = new Map();
  for (const panel of panels)
    panel.points.forEach((p, i) => {
      const e = panel.slices[0].stats[i][AXES[axis].speedup];
      if (p.baseline || !finite(e.value)) return;
      if (!lines.has(p.label)) lines.set(p.label, {p, at: []});
      lines.get(p.label).at.push([panel.tokens, e]);
    });
  const dashes = ["solid", "dash", "dashdot", "dot", "longdash"], seen = {};
  const traces = [...lines.values()].map(({p, at}) => {
    const {color, symbol} = look(p);
    seen[p.method] = (seen[p.method] ?? -1) + 1;
    return {
      x: at.map((a) => a[0]), y: at.map((a) => a[1].value), mode: "lines+markers", name: p.label, line: {color, width: 1.6, dash: dashes[seen[p.method] % dashes.length]},
      marker: {symbol, size: 7, color}, error_y: {...arrays(at.map((a) => a[1])), color: faded(color, 0.5)}, hovertemplate: `${escapeHtml(p.label)}: %{y:.2f}×<extra></extra>`,
    };
  });
  const crossings = data.break_even.filter((b) => b.axis === axis && b.kind === "crosses" && b.model === panels[0].model && b.hardware === panels[0].hardware && b.dtype === panels[0].dtype);
  traces.push({x: crossings.map((b) => b.tokens), y: crossings.map(() => 1), mode: "markers", name: "break-even", marker: {symbol: "diamond-open", size: 12, color: css("--text"), line: {width: 2}},
    text: crossings.map((b) => `${escapeHtml(b.label)}: ${Math.round(b.tokens)} tokens`), hoverinfo: "text"});
  const lengths = panels.map((p) => p.tokens);
  Plotly.react("latency", traces, layout({
    xaxis: {title: {text: "prompt length (tokens)"}, type: "log", tickvals: lengths, ticktext: lengths.map(tokensText)},
    yaxis: {title: {text: "speed-up over dense"}, rangemode: "tozero"},
    shapes: [{type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: {color: css("--text"), width: 1.2}}],
  }), config);
  const table = byId("breakeven");
  table.replaceChildren();
  const here = data.break_even.filter((b) => b.axis === axis && b.kind !== "one length only" && b.model === panels[0].model && b.hardware === panels[0].hardware && b.dtype === panels[0].dtype);
  if (!here.length) return;
  const head = element("tr");
  head.append(element("th", "method", {class: "text"}), element("th", `break-even with dense, ${AXES[axis].name}`));
  table.append(head);
  for (const b of here) {
    const tr = element("tr");
    const text = b.kind === "crosses" ? `${Math.round(b.tokens)} tokens` : b.kind === "always faster" ? `faster from ${b.shortest} tokens on` : `not up to ${b.longest} tokens`;
    tr.append(element("td", b.label, {class: "text"}), element("td", text));
    table.append(tr);
  }
}

function renderStages() {
  const panel = panelNow();
  const rows = panel.points.filter((p) => Object.keys(p.stages_s).length);
  byId("stages-section").hidden = !rows.length;
  if (!rows.length) return;
  const labels = rows.map((p) => p.label);
  const traces = Object.entries(STAGES).map(([stage, color]) => ({
    type: "bar", orientation: "h", name: stage, y: labels, x: rows.map((p) => p.stages_s[stage] ?? 0), marker: {color}, hovertemplate: `%{y}<br>${stage} %{x:.4g} s<extra></extra>`,
  }));
  const totals = rows.map((p) => panel.slices[0].stats[panel.points.indexOf(p)].attention_s.value);
  traces.push({x: totals, y: labels, mode: "markers", type: "scatter", name: "median attention time", marker: {symbol: "line-ns-open", size: 16, color: css("--text"), line: {width: 2}}, hovertemplate: "%{x:.4g} s<extra></extra>"});
  byId("stages").style.height = `${Math.max(220, 26 * labels.length + 110)}px`;
  Plotly.react("stages", traces, layout({barmode: "stack", legend: {orientation: "v", x: 1.01, y: 0.94, traceorder: "normal"}, xaxis: {title: {text: `seconds, all layers, ${tokensText(panel.tokens)} tokens`}}, yaxis: {autorange: "reversed"}, bargap: 0.3}), config);
}

// One chart per measure of the teacher-forced tasks that this length has.
const MEASURES = {
  perplexity: [["perplexity", (b) => Math.exp(b.nll), false], ["perplexity over dense's, %", (b, d) => (d ? 100 * Math.expm1(b.nll - d.nll) : null), false]],
  agreement: [["same best token as dense, %", (b) => 100 * b.top1, false], ["KL(dense ‖ method), nats", (b) => b.kl || null, true]],
};

function renderPositions() {
  const panel = panelNow();
  const rows = data.positions.filter((r) => r.model === panel.model && r.dtype === panel.dtype && r.tokens === panel.tokens && MEASURES[r.task]);
  const section = byId("positions-section"), box = byId("positions");
  section.hidden = !rows.length;
  if (!rows.length) return;
  byId("positions-title").textContent = `By position: ${tokensText(panel.tokens)} tokens`;
  box.replaceChildren();
  for (const key of new Set(rows.map((r) => JSON.stringify([r.task, r.text])))) {
    const here = rows.filter((r) => JSON.stringify([r.task, r.text]) === key);
    const dense = here.find((r) => r.baseline);
    const ranges = here.reduce((a, r) => (r.buckets.length > a.length ? r.buckets : a), here[0].buckets);
    const names = ranges.map((b, i) => `${tokensText(b.from)}–${i + 1 < ranges.length ? tokensText(ranges[i + 1].from) : tokensText(b.to + 1)}`);
    const dashes = ["solid", "dash", "dashdot", "dot", "longdash"], seen = {};
    for (const r of here) seen[r.label] = here.filter((q) => q.method === r.method).indexOf(r);
    for (const [title, value, log] of MEASURES[here[0].task]) {
      const chart = element("div", null, {class: "chart"});
      box.append(chart);
      const traces = here.map((r) => {
        const {color, symbol} = look(r);
        return {
          x: names.slice(0, r.buckets.length), y: r.buckets.map((b, i) => value(b, dense?.buckets[i])), mode: "lines+markers", name: r.label,
          line: {color, width: r.baseline ? 2.4 : 1.6, dash: dashes[seen[r.label] % dashes.length]}, marker: {color, symbol, size: r.baseline ? 12 : 7},
          hovertemplate: `${escapeHtml(r.label)}<br>%{y:.4g}<extra></extra>`,
        };
      });
      Plotly.newPlot(chart, traces, layout({
        title: {text: `${here[0].task} of ${escapeHtml(here[0].text || "its text")}`, font: {size: 13, color: css("--soft")}, x: 0, xref: "paper", y: 0.98, yanchor: "top"},
        margin: {l: 60, r: 16, t: 34, b: 50}, showlegend: true, xaxis: {title: {text: "tokens read"}, type: "category"},
        yaxis: {title: {text: title}, type: log ? "log" : "linear", ...(log && {exponentformat: "power"})},
      }), config);
    }
  }
}

function renderProblems() {
  byId("problems-section").hidden = !data.problems.length && !data.notes.length;
  const table = byId("problems");
  if (data.problems.length) {
    const head = element("tr");
    for (const h of ["method", "task", "tokens", "samples", "status", "why", "first", "run"]) head.append(element("th", h, {class: "text"}));
    table.append(head);
    for (const p of data.problems) {
      const tr = element("tr");
      for (const [v, wide] of [[p.label], [p.task], [p.tokens], [p.samples], [p.status], [p.why, true], [p.example], [p.run]]) tr.append(element("td", v, {class: wide ? "text wrap" : "text"}));
      table.append(tr);
    }
  }
  for (const note of data.notes) byId("notes").append(element("li", note));
}

function renderProvenance() {
  const box = byId("provenance");
  const kinds = new Map();  // runs with equal provenance, times apart
  for (const run of data.runs) {
    const {time, argv, ...rest} = run.provenance ?? {};
    const key = JSON.stringify(rest);
    if (!kinds.has(key)) kinds.set(key, {provenance: run.provenance ?? {}, runs: []});
    kinds.get(key).runs.push(run);
  }
  for (const {provenance, runs} of kinds.values()) {
    const details = element("details");
    if (kinds.size === 1) details.open = true;
    details.append(element("summary", `${runs.length} runs of ${[...new Set(runs.map((r) => r.experiment))].join(", ")}`));
    const list = element("dl");
    for (const [k, v] of Object.entries(provenance)) {
      if (k === "yaml" || k === "schema") continue;
      list.append(element("dt", k.replaceAll("_", " ")), element("dd", Array.isArray(v) ? v.join(" ") : typeof v === "object" ? JSON.stringify(v) : String(v)));
    }
    details.append(list);
    if (provenance.yaml) details.append(element("pre", provenance.yaml));
    const inner = element("details");
    inner.append(element("summary", "runs"));
    const table = element("table");
    for (const r of runs) {
      const tr = element("tr");
      const w = r.spec.workload;
      for (const v of [r.id, r.spec.method.label, `${w.task}, ${w.tokens} tokens, seed ${w.seed}`, r.complete ? "complete" : "partial"]) tr.append(element("td", v, {class: "text"}));
      table.append(tr);
    }
    const scroll = element("div", null, {class: "scroll"});
    scroll.append(table);
    inner.append(scroll);
    details.append(inner);
    box.append(details);
  }
}

function render() {
  byId("subtitle").textContent = currentGroup().title;
  renderControls();
  renderPareto();
  renderTable();
  renderLatency();
  renderStages();
  renderPositions();
}

function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  if (groups.length) render();
}
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
prefersDark.addEventListener("change", (e) => setTheme(e.matches));
byId("theme").onclick = () => setTheme(!document.documentElement.classList.contains("dark"));
renderProblems();
renderProvenance();
setTheme(prefersDark.matches);
