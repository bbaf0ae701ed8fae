"use strict";
(() => {
  const STEP = 60; // cards that are drawn at once
  const BY_ITSELF = 600; // as many are drawn as one scrolls; for more there is the button
  const { loras, states, tags, cards } = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const [form, list, more, count, clear] = ["find", "cards", "more", "count", "clear"].map(find);
  const fields = { q: find("words"), lora: find("lora"), tag: find("tag"), state: find("state"), order: find("order") };
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const pairs = (flat) => flat.flatMap((one, n) => (n % 2 ? [] : [[one, flat[n + 1]]]));
  const number = (n) => n.toLocaleString("en");
  const shown = (scale) => (Math.round(scale * 100) / 100 === scale ? scale.toFixed(2) : `${scale}`);
  const slug = (page) => page.slice(2, -5);

  // --- a card ---

  const bar = (hue, share, isNegative) => {
    const drawn = svg("svg", { class: `bar h${hue}`, viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    drawn.append(svg("rect", { class: "rest", width: 100, height: 1 }));
    drawn.append(svg("rect", { class: isNegative ? "fill minus" : "fill", width: share, height: 1 }));
    return drawn;
  };

  // A tile stands for a picture: a disc for each LoRA, as large as its scale, in a ring.
  const tile = (mix, seed) => {
    const drawn = svg("svg", { class: "tile", viewBox: "0 0 120 90", "aria-hidden": "true" });
    const turn = (seed % 360) * (Math.PI / 180);
    mix.forEach(([lora, scale], n) => {
      const angle = turn + (n * 2 * Math.PI) / mix.length;
      const away = mix.length > 1 ? 15 : 0;
      const size = 10 + 20 * Math.sqrt(Math.min(2, Math.abs(scale)));
      drawn.append(svg("circle", { class: `h${loras[lora][2]}`, cx: (60 + away * Math.cos(angle)).toFixed(1),
        cy: (45 + 0.8 * away * Math.sin(angle)).toFixed(1), r: size.toFixed(1) }));
    });
    return drawn;
  };

  const picture = (file, prompt) => {
    const image = document.createElement("img");
    Object.assign(image, { alt: prompt, loading: "lazy", decoding: "async", src: file });
    return image;
  };

  const model = find("card").content.firstElementChild;
  const seedOf = (page) => parseInt(page.slice(-9, -5), 16);
  const card = ([name, page, state, id, flat, own, file, prompt]) => {
    const made = model.cloneNode(true), mix = pairs(flat), link = made.querySelector("a");
    link.href = page;
    link.firstElementChild.textContent = name;
    made.querySelector(".shot").append(file ? picture(file, prompt) : tile(mix, seedOf(page)));
    const whole = mix.some(([, scale]) => Math.abs(scale) > 1) ? 2 : 1;
    made.querySelector(".bars").append(...mix.map(([lora, scale]) => {
      const row = document.createElement("li"), who = document.createElement("bdi"), value = document.createElement("span");
      who.className = "who";
      who.textContent = loras[lora][0];
      value.className = "scale";
      value.textContent = shown(scale);
      row.append(who, value, bar(loras[lora][2], Math.min(100, (Math.abs(scale) / whole) * 100), scale < 0));
      return row;
    }));
    const said = (place, what) => [...new Set(mix.map(([lora]) => loras[lora][place]).filter(Boolean))].map(what);
    const licences = said(4, (words) => words).join(", ");
    made.querySelector(".words").textContent = said(3, (words) => `“${words}”`).join(" ");
    made.querySelector(".licence").textContent = licences && `Licence: ${licences}`;
    const word = made.querySelector(".state");
    word.textContent = states[state];
    word.classList.add(states[state].replace(" ", "-"));
    made.querySelector("code").textContent = id;
    made.querySelector(".chips").append(...own.map((tag) => {
      const item = document.createElement("li"), button = document.createElement("button");
      Object.assign(button, { type: "button", className: "chip", textContent: tags[tag] });
      button.addEventListener("click", () => { fields.tag.value = tags[tag]; changed(); });
      item.append(button);
      return item;
    }));
    return made;
  };

  // --- which cards ---

  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  let searched = null; // the text of each card, made at the first search
  const textOf = ([name, page, , id, flat, own]) => {
    const of = pairs(flat).flatMap(([lora]) => [loras[lora][0], loras[lora][3]]);
    return plain([name, id, ...own.map((tag) => tags[tag]), ...of].join("\n"));
  };
  const orders = {
    changed: (a, b) => (cards[b][8] > cards[a][8]) - (cards[b][8] < cards[a][8]) || a - b,
    state: (a, b) => cards[b][2] - cards[a][2] || a - b,
  };
  const chosen = () => {
    const words = plain(fields.q.value).split(/\s+/).filter(Boolean);
    if (words.length) searched ??= cards.map(textOf);
    const lora = loras.findIndex((one) => slug(one[1]) === fields.lora.value);
    const tag = tags.indexOf(fields.tag.value), state = states.indexOf(fields.state.value);
    const numbers = [...cards.keys()].filter((n) =>
      (state < 0 || cards[n][2] === state) &&
      (tag < 0 || cards[n][5].includes(tag)) &&
      (lora < 0 || cards[n][4].some((one, place) => place % 2 === 0 && one === lora)) &&
      words.every((word) => searched[n].includes(word)));
    return fields.order.value ? numbers.sort(orders[fields.order.value]) : numbers;
  };

  // --- drawing them ---

  let numbers = [], drawn = 0;
  const draw = () => {
    const next = numbers.slice(drawn, drawn + STEP);
    list.append(...next.map((n) => card(cards[n])));
    drawn += next.length;
    const left = numbers.length - drawn;
    more.hidden = left === 0;
    more.textContent = `Show ${number(Math.min(STEP, left))} more of ${number(left)}`;
  };
  const redraw = () => {
    numbers = chosen();
    drawn = 0;
    list.replaceChildren();
    draw();
    const all = `${number(cards.length)} ${cards.length === 1 ? "composition" : "compositions"}`;
    const isAll = numbers.length === cards.length;
    count.textContent = isAll ? all : numbers.length ? `${number(numbers.length)} of ${all}` : `None of ${all} matches.`;
    clear.hidden = !["q", "lora", "tag", "state"].some((key) => fields[key].value);
  };
  more.addEventListener("click", () => {
    const first = drawn;
    draw();
    if (document.activeElement === more || document.activeElement === document.body)
      list.children[first]?.querySelector("a").focus({ preventScroll: true });
  });
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && drawn < BY_ITSELF && !more.hidden && document.activeElement !== more) draw();
  }, { rootMargin: "800px" }).observe(more);

  // --- the address says what is chosen, so that a link and the way back lead to it ---

  const read = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    for (const [key, field] of Object.entries(fields)) {
      field.value = said.get(key) ?? "";
      if (field.selectedIndex === -1) field.value = "";
    }
  };
  const changed = () => {
    const said = new URLSearchParams();
    for (const [key, field] of Object.entries(fields)) if (field.value) said.set(key, field.value);
    history.replaceState(null, "", `#${said}`);
    redraw();
  };
  const offer = (field, options) => {
    for (const [value, words, uses] of options) field.append(new Option(`${words} (${number(uses)})`, value));
    field.closest(".field").hidden = options.length === 0;
  };
  const counts = (of) => {
    const found = new Map();
    for (const one of cards) for (const key of new Set(of(one))) found.set(key, (found.get(key) ?? 0) + 1);
    return [...found].sort(([a], [b]) => a - b);
  };
  offer(fields.lora, counts((one) => pairs(one[4]).map(([lora]) => lora)).map(([n, uses]) => [slug(loras[n][1]), loras[n][0], uses]));
  offer(fields.tag, counts((one) => one[5]).map(([n, uses]) => [tags[n], tags[n], uses]));
  offer(fields.state, counts((one) => [one[2]]).map(([n, uses]) => [states[n], states[n], uses]));

  let waiting = 0;
  fields.q.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 80); });
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  clear.addEventListener("click", () => {
    for (const key of ["q", "lora", "tag", "state"]) fields[key].value = "";
    changed();
    fields.q.focus();
  });
  addEventListener("hashchange", () => { read(); redraw(); });
  form.hidden = cards.length === 0;
  read();
  redraw();
})();
{% if jobs %}
{% include "gallery_jobs.js" %}
{% endif %}
