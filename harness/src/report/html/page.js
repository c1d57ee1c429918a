"use strict";
// Draws what the fragment of the address asks for. Whatever comes from the report is put in as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { report, files } = data;
  const about = new Map((report.cases || []).map((one) => [one.id, one]));
  const claims = new Map(report.claims.map((one) => [one.id, one]));
  const cells = new Map(report.cells.map((one) => [one.id, one]));
  const overview = document.getElementById("overview");
  const detail = document.getElementById("detail");
  const list = document.getElementById("list");
  const form = document.getElementById("filters");
  const FILTERS = ["q", "verdict", "controller", "area", "mode"];
  const SIGNS = { pass: "✓", finding: "+", fail: "✕", "not-run": "?", "not-applicable": "–", confirmed: "✓", refuted: "✕" };
  const PAGE = 100;

  // Elements.
  const put = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  };
  const h = (name, attributes, ...children) => put(document.createElement(name), attributes, children);
  const s = (name, attributes, ...children) =>
    put(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  // The fragment: `cell=…&case=…` and the filters.
  const escape = (text) => encodeURIComponent(text).replace(/%2F/g, "/").replace(/%40/g, "@");
  const fragment = (state) =>
    "#" + Object.entries(state).filter(([, value]) => value).map(([name, value]) => name + "=" + escape(value)).join("&");
  const read = () => {
    const state = {};
    for (const part of location.hash.slice(1).split("&")) {
      const at = part.indexOf("=");
      if (at < 1) continue;
      try { state[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch { /* a fragment that somebody mistyped */ }
    }
    return state;
  };
  const filtersOf = (state) => Object.fromEntries(FILTERS.map((name) => [name, state[name]]));

  // Words.
  const areaOf = (id) => id.split("/")[0];
  const variantOf = (cell) => cell.mode + (cell.dialect ? " · " + cell.dialect : "");
  const badge = (verdict, flaky) => [
    h("span", { class: "badge " + verdict }, (SIGNS[verdict] || "") + " " + verdict),
    flaky ? [" ", h("span", { class: "badge flaky" }, "⇄ flaky")] : null,
  ];
  const number = (value, digits) => Number(value).toFixed(digits);
  const time = (ms) => (ms >= 1000 ? number(ms / 1000, 2) + " s" : ms >= 10 ? number(ms, 0) + " ms" : number(ms, 2) + " ms");
  const percent = (share) => number(share * 100, 1) + " %";

  // Which cases of which cells are meant.
  const matches = (state) => {
    const words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    return (cell, one) => {
      if (state.controller && cell.controller !== state.controller) return false;
      if (state.mode && cell.mode !== state.mode) return false;
      if (state.area && areaOf(one.id) !== state.area) return false;
      if (state.case && one.id !== state.case) return false;
      if (state.verdict === "flaky" ? !one.flaky : state.verdict && one.verdict !== state.verdict) return false;
      if (!words.length) return true;
      const summary = about.has(one.id) ? about.get(one.id).summary : "";
      const text = [cell.id, one.id, one.reason || "", summary].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    };
  };
  const pairs = (wanted) =>
    report.cells.flatMap((cell) => cell.cases.filter((one) => wanted(cell, one)).map((one) => [cell, one]));

  // The overview: the matrix with what the filters leave of it, and the cases that are left.
  const counted = (cases) => {
    const of = (verdict) => cases.filter((one) => one.verdict === verdict).length;
    const [passed, finding, failed, missing, off] = ["pass", "finding", "fail", "not-run", "not-applicable"].map(of);
    return { passed, finding, failed, missing, off, judged: passed + finding + failed + missing };
  };
  const drawOverview = (state) => {
    for (const name of FILTERS) {
      const field = form.elements[name];
      if (field !== document.activeElement || field.value.trim() !== (state[name] || "")) field.value = state[name] || "";
    }
    const wanted = matches(state);
    const filtered = FILTERS.some((name) => state[name]) || Boolean(state.case);
    let shown = 0;
    for (const row of document.querySelectorAll("#matrix tr[data-cell]")) {
      const cell = report.cells[row.dataset.cell];
      const left = cell.cases.filter((one) => wanted(cell, one));
      row.hidden = left.length === 0;
      shown += left.length ? 1 : 0;
      for (const place of row.querySelectorAll("td")) {
        const { area } = place.dataset;
        place.hidden = Boolean(state.area) && state.area !== area;
        const count = counted(left.filter((one) => areaOf(one.id) === area));
        const kind = count.failed ? "fail" : count.missing ? "not-run" : count.finding ? "finding"
          : count.passed || (state.verdict === "not-applicable" && count.off) ? "pass" : "not-applicable";
        const marks = [["+", count.finding], ["!", count.failed], ["?", count.missing]];
        const text = [state.verdict && !count.passed ? "" : count.passed, ...marks.filter(([, n]) => n).map(([mark, n]) => mark + n)].join(" ").trim();
        const off = state.verdict === "not-applicable" && count.off;
        place.className = off ? "not-applicable" : kind;
        place.replaceChildren(count.judged || off
          ? h("a", { href: fragment({ ...filtersOf(state), case: state.case, cell: cell.id, area }) }, off ? String(count.off) : text) : "–");
      }
    }
    for (const group of document.querySelectorAll("#matrix tbody")) {
      group.hidden = !group.querySelector("tr[data-cell]:not([hidden])");
    }
    for (const head of document.querySelectorAll("#matrix thead th[data-area]")) {
      head.hidden = Boolean(state.area) && state.area !== head.dataset.area;
    }
    const found = pairs(wanted);
    document.getElementById("matching").textContent = filtered ? found.length + " cases in " + shown + " cells" : "";
    if (filtered) {
      const title = state.case && about.has(state.case) ? state.case + ": " + about.get(state.case).summary : "Cases that match";
      list.replaceChildren(h("h3", {}, title), casesTable(found, state, true));
      return;
    }
    const red = found.filter(([, one]) => one.flaky || one.verdict === "fail" || one.verdict === "not-run");
    const findings = found.filter(([, one]) => one.verdict === "finding");
    list.replaceChildren(
      ...(red.length ? [h("h3", {}, "Not as promised"), casesTable(red, state, true)] : []),
      ...(findings.length ? [h("h3", {}, "Findings: weaknesses that the recipes declare"), casesTable(findings, state, true)] : []));
  };
  const casesTable = (found, state, withCell) => {
    if (!found.length) return h("p", { class: "soft" }, "None.");
    const body = h("tbody", {});
    const more = h("button", { type: "button" });
    let shown = 0;
    const grow = () => {
      for (const [cell, one] of found.slice(shown, shown + PAGE)) {
        const link = fragment({ ...filtersOf(state), cell: cell.id, case: one.id });
        const summary = about.has(one.id) ? about.get(one.id).summary : "";
        body.append(h("tr", {},
          h("td", {}, badge(one.verdict, one.flaky)),
          h("td", {}, h("a", { href: link }, one.id)),
          withCell ? h("td", {}, h("a", { href: fragment({ cell: cell.id }) }, cell.id)) : null,
          h("td", { class: "reason" }, one.reason || summary),
          h("td", { class: "number" }, one.attempts ? number(one.seconds, 2) + " s" : "")));
      }
      shown = Math.min(found.length, shown + PAGE);
      more.textContent = "Show more (" + (found.length - shown) + " left)";
      more.hidden = shown === found.length;
    };
    more.addEventListener("click", grow);
    grow();
    const titles = ["verdict", "case", withCell ? "cell" : null, "reason or summary", "time"].filter(Boolean);
    return h("div", {},
      h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Cases" },
        h("table", { class: "cases" },
          h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))), body)),
      h("p", {}, more));
  };

  // A cell.
  const facts = (entries) =>
    h("dl", { class: "facts-list" }, entries.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  const command = (line) => {
    const text = h("pre", { tabindex: "0" }, line);
    const copy = h("button", { type: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(line); copy.textContent = "Copied"; } catch { getSelection().selectAllChildren(text); }
    });
    return h("div", { class: "command" }, text, copy);
  };
  const missing = (what) => [h("h2", { tabindex: "-1" }, what), h("p", {}, "It is not in this report.")];
  const drawCell = (state) => {
    const cell = cells.get(state.cell);
    const crumbs = h("nav", { class: "crumbs", "aria-label": "Where you are" },
      h("a", { href: fragment(filtersOf(state)) || "#" }, "← Matrix"),
      state.area ? h("a", { href: fragment({ cell: state.cell }) }, "all areas of the cell") : null);
    if (!cell) return [crumbs, missing("No cell " + state.cell)];
    const wanted = matches(state);
    const found = cell.cases.filter((one) => wanted(cell, one)).map((one) => [cell, one]);
    const ran = found.filter(([, one]) => one.verdict !== "not-applicable");
    const not = found.filter(([, one]) => one.verdict === "not-applicable");
    return [
      crumbs,
      h("h2", { tabindex: "-1" }, cell.id),
      facts([
        ["controller", cell.controller + " " + cell.version],
        ["recipe", cell.recipe],
        ["mode", variantOf(cell)],
        ["control plane", cell.implementation.control_plane],
        ["data plane", cell.implementation.data_plane],
        ["mesh", cell.mesh],
        ["cluster", cell.cluster],
        ["ready after", cell.setup_seconds === null ? "never" : number(cell.setup_seconds, 1) + " s"],
        ["broke", cell.broken],
      ]),
      cell.repeat ? [h("h3", {}, "Run it again"), command(cell.repeat)] : null,
      h("h3", {}, (state.area ? state.area + ": " : "") + ran.length + " cases"),
      casesTable(ran, state, false),
      not.length ? h("details", {}, h("summary", {}, not.length + " that do not apply"), casesTable(not, state, false)) : null,
    ];
  };

  // A case in a cell.
  const drawCase = (state) => {
    const cell = cells.get(state.cell);
    const one = cell && cell.cases.find((other) => other.id === state.case);
    const place = cell ? cell.cases.filter((other) => other.verdict !== "not-applicable") : [];
    const at = place.indexOf(one);
    const step = (other, text, key) =>
      other ? h("a", { href: fragment({ ...filtersOf(state), cell: state.cell, case: other.id }), "data-key": key }, text) : null;
    const crumbs = h("nav", { class: "crumbs", "aria-label": "Where you are" },
      h("a", { href: fragment(filtersOf(state)) || "#" }, "← Matrix"),
      h("a", { href: fragment({ cell: state.cell }) }, state.cell),
      h("a", { href: fragment({ case: state.case }) }, "this case in every cell"),
      step(at > 0 ? place[at - 1] : null, "‹ previous", "ArrowLeft"),
      step(at >= 0 ? place[at + 1] : null, "next ›", "ArrowRight"));
    if (!one) return [crumbs, missing("No case " + state.case + " in " + state.cell)];
    const told = about.get(one.id);
    const seen = one.observations || { requests: 0 };
    const says = Object.entries(one.claims).map(([id, verdict]) =>
      h("div", {}, badge(verdict), " ", claims.has(id) ? claims.get(id).text : id, " ", h("small", {}, id)));
    return [
      crumbs,
      h("h2", { tabindex: "-1" }, badge(one.verdict, one.flaky), " ", one.id),
      told ? h("p", { class: "lead" }, told.summary) : null,
      one.reason ? reason(one) : null,
      facts([
        ["it needs", told && told.needs.length ? told.needs.join("; ") : null],
        ["what it says of the page", says.length ? says : null],
        ["took", one.attempts ? number(one.seconds, 2) + " s" + (one.attempts > 1 ? ", both looks together" : "") : "it did not run"],
        ["looked at", one.attempts > 1 ? "twice: a failure is looked at once more" : null],
        ["requests", seen.requests ? String(seen.requests) : null],
      ]),
      (seen.shares || []).length ? [h("h3", {}, "Shares"), seen.shares.map(share)] : null,
      seen.latency ? [h("h3", {}, "How long answers took"), latency(seen.latency)] : null,
      (seen.samples || []).length ? [h("h3", {}, "Requests and answers"), samples(seen, cell)] : null,
      cell.repeat ? [h("h3", {}, "Run it again"), command(cell.repeat + " --case " + one.id)] : null,
      one.artefacts.length ? [h("h3", {}, "Files"), one.artefacts.map(file)] : null,
    ];
  };
  const reason = (one) => {
    const parts = /^([^]*?): expected ([^]*), found ([^]*)$/.exec(one.reason);
    if (!parts || one.verdict !== "fail") return h("p", { class: "lead" }, one.reason);
    return [
      h("p", { class: "lead" }, parts[1]),
      h("div", { class: "beside" },
        h("div", { class: "box good" }, h("h4", {}, "expected"), h("span", { class: "line" }, parts[2])),
        h("div", { class: "box bad" }, h("h4", {}, "found"), h("span", { class: "line" }, parts[3]))),
    ];
  };
  const file = (name) => {
    const known = files[name];
    const short = name.split("/").slice(3).join("/") || name;
    // A report may come from elsewhere: only what lies in its own folder is a link.
    const link = /^artefacts\//.test(name) && !name.includes("..") ? h("a", { href: encodeURI(name) }, "open") : null;
    if (!known) return h("p", {}, h("code", {}, name), " ", link);
    return h("details", { class: "file" },
      h("summary", {}, h("code", {}, short), " ", h("small", {}, known.text.length + " characters")),
      h("p", { class: "soft" }, known.before ? "The end of it; " + known.before + " bytes before are in " + name + ". " : name + " ", link),
      h("pre", { tabindex: "0" }, known.text));
  };

  // Requests. Of those that were sent at once it is counted what came of them.
  const atOnce = (sample) => Object.keys(sample.answers || {}).length > 0;
  const told = (sample) => Object.entries(sample.answers).map(([answer, times]) => times + " × " + answer);
  const samples = (seen, cell) => {
    const kept = seen.samples.reduce((sum, sample) => sum + sample.times, 0);
    return [
      kept < seen.requests ? h("p", { class: "soft" }, kept + " of " + seen.requests + " are shown: the first, and those at the end.") : null,
      seen.samples.map((sample, index) => h("details", { class: "sample", open: index === seen.samples.length - 1 },
        h("summary", {}, h("code", {}, sample.sent), " → ", atOnce(sample) ? h("strong", {}, told(sample).join(", ")) : [
          h("strong", {}, sample.outcome), sample.seen ? " from " + sample.seen.service : "", " ",
          h("small", {}, time(sample.ms) + (sample.times > 1 ? ", and so " + sample.times + " times" : ""))]),
        hops(sample, cell),
        h("div", { class: "beside" },
          h("div", { class: "box" }, h("h4", {}, "sent from " + sample.from + " to " + sample.target),
            h("code", { class: "line" }, sample.sent), (sample.headers || []).map((line) => h("code", { class: "line" }, line)),
            sample.body ? h("code", { class: "line" }, "\n" + sample.body) : null),
          arrived(sample),
          (sample.answer || []).length || sample.text ? h("div", { class: "box" }, h("h4", {}, "came back"),
            h("code", { class: "line" }, sample.outcome), (sample.answer || []).map((line) => h("code", { class: "line" }, line)),
            sample.text ? h("code", { class: "line" }, "\n" + sample.text) : null) : null))),
    ];
  };
  const nameOf = (line) => line.slice(0, line.indexOf(":")).toLowerCase();
  const differences = (sample) => {
    const normal = (line) => nameOf(line) + line.slice(line.indexOf(":"));
    const sent = (sample.headers || []).map(normal);
    const got = ((sample.seen || {}).headers || []).map(normal);
    return {
      kept: got.filter((line) => sent.includes(line) || nameOf(line) === "host"),
      added: got.filter((line) => !sent.includes(line) && nameOf(line) !== "host"),
      gone: sent.filter((line) => !got.includes(line) && nameOf(line) !== "host"),
    };
  };
  const arrived = (sample) => {
    if (!sample.seen) return h("div", { class: "box" }, h("h4", {}, "arrived"), h("p", { class: "soft" }, "No backend told what arrived."));
    if (!(sample.seen.headers || []).length) {
      return h("div", { class: "box" }, h("h4", {}, "arrived at " + sample.seen.pod), h("p", { class: "soft" }, "Of many requests at once only who answered is kept."));
    }
    const { kept, added, gone } = differences(sample);
    return h("div", { class: "box" }, h("h4", {}, "arrived at " + sample.seen.pod),
      h("code", { class: "line" }, "  " + sample.seen.line),
      kept.map((line) => h("code", { class: "line" }, "  " + line)),
      added.map((line) => h("code", { class: "line added" }, "+ " + line)),
      gone.map((line) => h("code", { class: "line gone" }, "− " + line)));
  };

  // The way of a request, with what is known of each hop.
  const way = (sample, cell) => {
    const { seen } = sample;
    const { added, gone } = seen ? differences(sample) : { added: [], gone: [] };
    const arrivedAs = (name) => ((seen || {}).headers || []).filter((line) => nameOf(line) === name).map((line) => line.slice(line.indexOf(":") + 1).trim());
    const full = seen && (seen.headers || []).length > 0;
    const inside = sample.from === "the probe pod";
    const refused = (sample.answer || []).find((line) => nameOf(line) === "l5d-proxy-error");
    const host = /^\S+ [a-z]+:\/\/([^/ ]*)/.exec(sample.sent);
    const hop = (title, lines, mesh, dark) => ({ title, lines: lines.filter(Boolean), mesh, dark });
    const hops = [hop(inside ? "probe pod" : "client", [sample.from === "outside" || inside ? null : sample.from, host ? "asks for " + host[1] : null])];
    const rule = { default: "follows the address", ingress: "follows the override" }[cell.mode];
    if (inside) hops.push(hop("its proxy", [variantOf(cell), rule], true));
    if (sample.controller) {
      const forwarded = arrivedAs("x-forwarded-for")[0];
      hops.push(hop(cell.controller + " " + cell.version, ["at " + sample.target, forwarded ? "saw client " + forwarded : null]));
      if (cell.mode !== "outside") hops.push(hop("its proxy", [variantOf(cell), rule, gone.some((line) => nameOf(line) === "l5d-dst-override") ? "override removed" : null], true));
    }
    if (refused) hops[hops.length - 1].lines.push("refused: " + refused.slice(refused.indexOf(":") + 1).trim());
    const identity = arrivedAs("l5d-client-id")[0];
    hops.push(hop("app's proxy", [!full ? null : identity ? "proven: " + identity.split(".")[0] : "no identity told"], true, !seen));
    if (atOnce(sample) && seen) {
      hops.push(hop(Object.keys(sample.answers).length > 1 ? "apps" : seen.service, told(sample)));
      return hops;
    }
    hops.push(hop(seen ? seen.service : "app", seen
      ? [seen.pod, full ? added.length + " headers more, " + gone.length + " gone" : null] : ["nothing told"], false, !seen));
    return hops;
  };
  const hops = (sample, cell) => {
    const nodes = way(sample, cell);
    const fit = (text, room) => (text.length > room ? text.slice(0, room - 1) + "…" : text);
    const upright = document.documentElement.clientWidth < 760;
    const [wide, high, gap] = upright ? [300, 74, 26] : [186, 78, 34];
    const size = (n, one) => n * one + (n - 1) * gap + 4;
    const [width, height] = upright ? [wide + 4, size(nodes.length, high)] : [size(nodes.length, wide), high + 4];
    const parts = nodes.flatMap((node, index) => {
      const [x, y] = upright ? [2, 2 + index * (high + gap)] : [2 + index * (wide + gap), 2];
      const dark = node.dark ? " dark" : "";
      const room = upright ? 46 : 28;
      const drawn = [
        s("rect", { class: "node" + (node.mesh ? " mesh" : "") + dark, x, y, width: wide, height: high, rx: 8 }),
        s("text", { class: "t-strong", x: x + 10, y: y + 20 }, fit(node.title, room - 2)),
        ...node.lines.slice(0, 3).map((line, row) => s("text", { class: "t-soft", x: x + 10, y: y + 37 + row * 15 }, fit(line, room), s("title", {}, line))),
      ];
      if (index) {
        const [x1, y1, x2, y2] = upright ? [x + wide / 2, y - gap, x + wide / 2, y - 6] : [x - gap, y + high / 2, x - 6, y + high / 2];
        const tip = upright ? [[x2 - 5, y2 - 2], [x2 + 5, y2 - 2], [x2, y2 + 6]] : [[x2 - 2, y2 - 5], [x2 - 2, y2 + 5], [x2 + 6, y2]];
        drawn.push(s("path", { class: "edge" + dark, d: "M" + x1 + " " + y1 + "L" + x2 + " " + y2 }), s("polygon", { class: "tip", points: tip.map((point) => point.join()).join(" ") }));
      }
      return drawn;
    });
    const text = nodes.map((node) => node.title + (node.lines.length ? " (" + node.lines.join(", ") + ")" : "")).join(" → ");
    return s("svg", { class: "hops", viewBox: "0 0 " + width + " " + height, width, height, role: "img", "aria-label": text }, parts);
  };

  // Shares and times.
  const share = (one) => {
    const [width, left, right, y] = [640, 10, 10, 34];
    const x = (value) => left + Math.max(0, Math.min(1, value)) * (width - left - right);
    const found = one.count / one.n;
    const others = [one.expected - one.off, one.expected + one.off].filter((other) => other >= 0 && other <= 1);
    const text = one.count + " of " + one.n + " are " + percent(found) + "; expected " + percent(one.expected)
      + (one.accepted ? ", accepted after so many from " + one.accepted.join(" to ") + ", while others take more requests to judge" : "")
      + "; a share " + number(one.off * 100, 0) + " points off is refused (false alarm at most " + one.false_alarm.toExponential(0)
      + ", miss " + one.miss.toExponential(0) + ").";
    return h("div", {},
      h("p", {}, badge(one.held ? "pass" : "fail"), " ", one.what),
      s("svg", { viewBox: "0 0 " + width + " 84", width, height: 84, role: "img", "aria-label": text },
        s("rect", { class: "track", x: x(0), y, width: x(1) - x(0), height: 18 }),
        one.accepted ? s("rect", { class: "accept", x: x(one.accepted[0] / one.n), y, width: Math.max(2, x(one.accepted[1] / one.n) - x(one.accepted[0] / one.n)), height: 18 }) : null,
        others.map((other) => s("path", { class: "refuse", d: "M" + x(other) + " " + (y - 4) + "v26" })),
        s("path", { class: "expect", d: "M" + x(one.expected) + " " + (y - 4) + "v26" }),
        s("polygon", { class: "found", points: [[x(found), y - 2], [x(found) - 6, y - 12], [x(found) + 6, y - 12]].map((point) => point.join()).join(" ") }),
        s("text", { class: "t-strong", x: x(found), y: y - 17, "text-anchor": found < 0.1 ? "start" : found > 0.9 ? "end" : "middle" }, percent(found)),
        [0, 0.25, 0.5, 0.75, 1].map((tick) => s("text", { class: "t-soft", x: x(tick), y: y + 38, "text-anchor": tick === 0 ? "start" : tick === 1 ? "end" : "middle" }, number(tick * 100, 0) + " %"))),
      h("p", { class: "soft" }, text));
  };
  const latency = (one) => {
    const [width, height, left, foot] = [640, 150, 10, 24];
    const first = one.histogram.findIndex((count) => count > 0);
    const bars = one.histogram.slice(first);
    const step = Math.min(90, (width - 2 * left) / bars.length);
    const most = Math.max(...bars);
    const top = height - foot - 22;
    // The bar of index i holds 2^(i-5) to 2^(i-4) milliseconds.
    const x = (ms) => left + Math.max(0, Math.min(bars.length, Math.log2(ms) + 5 - first)) * step;
    const text = one.n + " answers: half within " + time(one.p50) + ", 90 % within " + time(one.p90) + ", 99 % within " + time(one.p99) + ", the longest " + time(one.max) + ".";
    return h("div", {},
      s("svg", { viewBox: "0 0 " + width + " " + height, width, height, role: "img", "aria-label": text },
        bars.map((count, index) => {
          const tall = count ? Math.max(2, (count / most) * top) : 0;
          return [
            s("rect", { class: "bar", x: left + index * step + 1, y: height - foot - tall, width: step - 2, height: tall }, s("title", {}, count + " answers")),
            s("text", { class: "t-soft", x: left + index * step, y: height - 8, "text-anchor": index ? "middle" : "start" }, time(2 ** (index + first - 5))),
          ];
        }),
        [["50", one.p50], ["99", one.p99]].map(([name, ms]) => [
          s("path", { class: "quantile", d: "M" + x(ms) + " 16V" + (height - foot) }),
          s("text", { class: "t-soft", x: x(ms), y: 12, "text-anchor": x(ms) > width - 60 ? "end" : "middle" }, name + " %"),
        ])),
      h("p", { class: "soft" }, text));
  };

  // From fragment to page.
  let before = null;
  const draw = () => {
    const state = read();
    const deep = Boolean(state.cell);
    if (deep) {
      detail.replaceChildren(...(state.case ? drawCase(state) : drawCell(state)).flat(9).filter(Boolean));
    } else if (location.hash !== "#main") {
      drawOverview(state);
    }
    overview.hidden = deep;
    detail.hidden = !deep;
    if (before !== null && deep && before !== location.hash) {
      scrollTo(0, 0);
      const title = detail.querySelector("h2");
      if (title) title.focus();
    }
    before = location.hash;
  };
  const filter = () => {
    const values = Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value.trim()]));
    history.replaceState(null, "", fragment(values));
    draw();
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => { event.preventDefault(); history.replaceState(null, "", "#"); draw(); });
  addEventListener("hashchange", draw);
  addEventListener("keydown", (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !overview.hidden) { event.preventDefault(); form.elements.q.focus(); }
    if (event.key === "Escape" && !detail.hidden) { const up = detail.querySelector(".crumbs a"); if (up) up.click(); }
    const link = detail.hidden ? null : detail.querySelector('[data-key="' + event.key + '"]');
    if (link && !event.target.closest(".scroll, pre")) link.click();
  });
  let upright = null;
  addEventListener("resize", () => {
    const now = document.documentElement.clientWidth < 760;
    if (upright !== null && upright !== now && !detail.hidden) draw();
    upright = now;
  });
  draw();
})();
