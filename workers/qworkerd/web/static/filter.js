// Completes the filter of a page, counts the selected jobs, and keeps the views that a user has saved in the browser.
"use strict";
(() => {
  const input = document.querySelector("[data-filter]"), KEY = "qworker.views", MAX = 20, MAX_OFFERS = 30, WAIT = 120;
  const make = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), {textContent: text, ...more});
  if (!input) return;

  // Completion: of keys, and of the values of those of which the database knows the names.
  const list = make("ul", "", {className: "offers", id: "offers", role: "listbox", hidden: true});
  let keys, offers = [], chosen = -1, turn = 0, asked = "", answer;
  input.closest("form").append(list);
  for (const [name, value] of Object.entries({role: "combobox", "aria-expanded": "false", "aria-controls": "offers", "aria-autocomplete": "list"})) input.setAttribute(name, value);

  const load = async () => keys ??= fetch(input.dataset.completions).then((answer) => answer.ok ? answer.json() : {keys: []}).then((found) => found.keys, () => []);
  const quoted = (text) => /^[^\s,"*<>=][^\s,"*]*$/.test(text) ? text : '"' + text.replace(/[\\"]/g, "\\$&") + '"';
  const word = () => {
    const before = input.value.slice(0, input.selectionStart);
    const start = before.match(/(?:"(?:[^"\\]|\\.)*"?|\S)*$/).index;
    return {start, text: before.slice(start)};
  };
  const find = (known) => {
    const {start, text} = word(), [, minus, name, given] = text.match(/^(-?)([^:]*)(?::(.*))?$/s);
    if (given === undefined) return known.filter((key) => key.name.startsWith(name.toLowerCase()))
      .map((key) => ({start, text: minus + key.name + (key.name === "args" ? "." : ":"), label: key.name, help: key.example, open: true}));
    const at = given.lastIndexOf(",") + 1, part = given.slice(at).replace(/^"/, "").toLowerCase();
    const values = known.find((key) => key.name === name.toLowerCase())?.values ?? [];
    return values.filter((value) => value.toLowerCase().includes(part) && value.toLowerCase() !== part)
      .map((value) => ({start, text: minus + name + ":" + given.slice(0, at) + quoted(value), label: value, help: ""}));
  };
  // Names and values inside the arguments are those of jobs that match the other terms.
  const inside = ({start, text}) => {
    const others = input.value.slice(0, start) + input.value.slice(input.selectionStart).replace(/^\S*/, " ");
    const url = input.dataset.arguments + "?" + new URLSearchParams({word: text, rest: others.trim()});
    if (url !== asked) answer = fetch(asked = url).then((answer) => answer.ok ? answer.json() : {offers: []}, () => ({offers: []}));
    return answer.then((found) => found.offers.map((one) => ({...one, start, help: ""})));
  };
  const hide = () => {
    turn++;
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (step) => {
    chosen = (chosen + step + offers.length) % offers.length;
    [...list.children].forEach((item, i) => item.setAttribute("aria-selected", i === chosen));
    list.children[chosen].scrollIntoView({block: "nearest"});
    input.setAttribute("aria-activedescendant", "offer-" + chosen);
  };
  const show = async () => {
    const mine = ++turn, now = word(), args = input.dataset.arguments && /^-?args\./i.test(now.text);
    if (args) await new Promise((done) => setTimeout(done, WAIT));
    const found = mine === turn ? args ? await inside(now) : find(await load()) : [];
    if (mine !== turn) return;
    offers = found.slice(0, MAX_OFFERS);
    chosen = -1;
    if (!offers.length || document.activeElement !== input) return hide();
    list.replaceChildren(...offers.map(({label, help}, i) => {
      const item = make("li", "", {id: "offer-" + i, role: "option"});
      item.append(make("span", label), make("span", help));
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(i); });
      return item;
    }));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
  };
  const take = (i) => {
    const {start, text, open} = offers[i], rest = input.value.slice(input.selectionStart);
    input.value = input.value.slice(0, start) + text + (open || rest.startsWith(" ") ? "" : " ") + rest;
    const at = start + text.length + (open ? 0 : 1);
    input.setSelectionRange(at, at);
    show();
  };
  input.addEventListener("input", show);
  input.addEventListener("focus", show);
  input.addEventListener("blur", hide);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") mark(event.key === "ArrowDown" ? 1 : chosen < 0 ? 0 : -1);
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(chosen);
    else if (event.key === "Escape") hide();
    else return;
    event.preventDefault();
  });

  // Saved views: a name and the parameters of the address.
  const place = document.querySelector("[data-views]"), save = document.querySelector("[data-save]");
  const stored = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KEY));
      return Array.isArray(found) ? found.filter((one) => typeof one?.name === "string" && typeof one?.query === "string").slice(0, MAX) : [];
    } catch { return []; }
  };
  const keep = (views) => {
    try { localStorage.setItem(KEY, JSON.stringify(views.slice(0, MAX))); } catch { /* no storage: nothing is kept */ }
    draw();
  };
  const draw = () => place?.replaceChildren(...stored().map((one) => {
    const item = make("span"), away = make("button", "×", {type: "button"});
    item.append(make("a", one.name, {href: "?" + one.query}), away);
    away.setAttribute("aria-label", place.dataset.views.replace("{name}", () => one.name));
    away.addEventListener("click", () => keep(stored().filter((other) => other.name !== one.name)));
    return item;
  }));
  if (save) {
    save.hidden = false;
    save.addEventListener("click", () => {
      const query = new URLSearchParams(location.search), name = input.value.trim().slice(0, 40) || save.dataset.save;
      ["below", "far", "count", "region"].forEach((part) => query.delete(part));
      keep([...stored().filter((one) => one.name !== name), {name, query: query.toString()}]);
    });
  }
  draw();

  // Which jobs are selected, and how many: a refresh of the list keeps them.
  let selected = new Set();
  const boxes = () => [...document.querySelectorAll(".jobs tbody input[type=checkbox]")];
  const count = () => {
    selected = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
    const said = document.querySelector("[data-selected]");
    document.querySelectorAll("[data-two]").forEach((button) => (button.disabled = selected.size !== 2));
    if (said) said.textContent = selected.size ? said.dataset.selected.replace("{number}", selected.size) : said.dataset.none;
  };
  // A box in the head of the table ticks all of its rows.
  document.addEventListener("change", ({target}) => {
    if (target.matches("[data-all]")) boxes().forEach((box) => (box.checked = target.checked));
    count();
  });
  count();
  document.addEventListener("htmx:after:swap", () => {
    boxes().forEach((box) => (box.checked = selected.has(box.value)));
    count();
  });
})();
