// Refreshes regions, shows times as the user prefers, and reacts to keys. Pages work without it.
"use strict";
(() => {
  const html = document.documentElement, $ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const on = (name, handle) => document.addEventListener(name, handle);
  const root = html.dataset.root, away = document.getElementById("away"), help = document.getElementById("help");
  // Texts are in attributes of what shows them, with {places}.
  const say = (text, name, value) => text.replace("{" + name + "}", () => value);
  const LIMIT = 60, TICK = 500;
  let failures = 0, seen = new Date();

  // Times: relative, local or UTC. The server writes UTC.
  const relative = new Intl.RelativeTimeFormat(html.lang, {numeric: "auto", style: "short"});
  const local = new Intl.DateTimeFormat("sv-SE", {dateStyle: "short", timeStyle: "medium"});
  const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const parts = (seconds) => {
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) || ["second", 1];
    return [Math.trunc(seconds / size), unit];
  };
  const ago = (at) => relative.format(...parts((at - Date.now()) / 1000));
  const lasted = (at) => {
    const [number, unit] = parts((Date.now() - at) / 1000);
    return new Intl.NumberFormat(html.lang, {style: "unit", unit, unitDisplay: "short"}).format(number);
  };
  const times = (from = document) => {
    const choice = html.dataset.time;
    for (const time of $("time[datetime]", from)) {
      const at = new Date(time.dateTime);
      if (isNaN(at)) continue;
      const utc = time.dateTime.slice(0, 19).replace("T", " ") + " UTC";
      const goesOn = "since" in time.dataset, due = at > Date.now(), isRelative = choice === "relative" && !("exact" in time.dataset);
      const shown = !isRelative ? (choice === "utc" ? utc : local.format(at)) : goesOn && !due ? lasted(at) : ago(at);
      const text = goesOn ? say(html.dataset[due ? "due" : isRelative ? "for" : "since"], "time", shown) : shown;
      time.title = choice === "utc" ? local.format(at) : utc;
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // Regions: each asks for itself when its time has come, unless the page is hidden or the server is away.
  const ask = (region) => {
    region.qwAt = Date.now();
    htmx.trigger(region, "refresh");
  };
  const busy = (region) => region.querySelector(":popover-open, dialog[open], tbody :checked") || region.matches(":has(:is(input, select, textarea):focus)");
  const tick = () => {
    if (document.hidden) return;
    if (html.dataset.time === "relative") times();
    const chosen = html.dataset.refresh, slower = failures && Math.min(2 ** failures, LIMIT);
    for (const region of $(".region[data-every]")) {
      const every = Number(chosen === "auto" ? region.dataset.every : chosen);
      if (every && !busy(region) && Date.now() - (region.qwAt ??= Date.now()) + TICK / 2 >= 1000 * Math.max(every, slower)) ask(region);
    }
  };
  const failed = (text) => {
    failures++;
    away.textContent = text + " " + say(away.dataset.asOf, "time", local.format(seen));
    away.hidden = false;
  };
  on("htmx:config:request", (event) => {
    const {sourceElement, request} = event.detail.ctx;
    if (sourceElement.qwTag) request.headers["If-None-Match"] = sourceElement.qwTag;
  });
  on("htmx:before:swap", (event) => {
    if (event.detail.ctx?.response?.status >= 400) event.preventDefault();
  });
  on("htmx:after:request", (event) => {
    const {sourceElement, response} = event.detail.ctx;
    if (response.status >= 400) {
      if (response.status === 401) location.reload();
      return failed(response.status === 503 ? away.dataset.database : say(away.dataset.failed, "status", response.status));
    }
    if (response.status === 200) sourceElement.qwTag = response.headers.get("ETag");
    failures = 0;
    seen = new Date();
    away.hidden = true;
  });
  on("htmx:error", () => failed(away.dataset.server));
  on("htmx:after:swap", () => times());
  on("visibilitychange", tick);

  // Settings are cookies, so that the server knows them with the next page.
  for (const select of $("[data-setting]")) {
    const name = select.dataset.setting;
    select.value = html.dataset[name];
    select.addEventListener("change", () => {
      html.dataset[name] = select.value;
      document.cookie = "qworker_" + name + "=" + select.value + "; path=" + (root.replace(/\/$/, "") || "/") + "; max-age=31536000; samesite=lax";
      times();
    });
  }

  // Keys.
  let after = "", row = -1;
  const rows = () => $("main .table tbody tr");
  const move = (step) => {
    rows()[row]?.classList.remove("on");
    row = Math.max(0, Math.min(rows().length - 1, row + step));
    const current = rows()[row];
    current?.classList.add("on");
    current?.scrollIntoView({block: "nearest"});
    current?.querySelector("a")?.focus({preventScroll: true});
  };
  on("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox]), select, textarea") || document.querySelector("dialog[open], :popover-open")) return;
    const key = event.key, before = after;
    after = key === "g" && !before ? "g" : "";
    if (before === "g") $("nav [data-key]").find((link) => link.dataset.key === key)?.click();
    else if (key === "?") help.showModal();
    else if (key === "r") $(".region[data-every]").forEach(ask);
    else if (key === "j") move(1);
    else if (key === "k") move(-1);
    else if (key === "x") rows()[row]?.querySelector("input[type=checkbox]")?.click();
    else if (key === "/" && $("[data-filter]")[0]) {
      $("[data-filter]")[0].focus();
      event.preventDefault();
    }
  });

  times();
  setInterval(tick, TICK);
})();
