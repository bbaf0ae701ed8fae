"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`)?.value;
document.body.classList.add("js");

// --- comparing: a slider over each pair of pictures ---

for (const row of all(".row")) {
  const split = Object.assign(document.createElement("input"),
    { type: "range", min: 0, max: 100, value: 50, step: 0.1, className: "split" });
  const line = Object.assign(document.createElement("div"), { className: "line" });
  row.querySelector(".shots").append(line, split);
  split.addEventListener("input", () => place(row, split));
  split.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2 }[event.key];
    if (!step) return; // Home, End and the page keys work by themselves
    event.preventDefault();
    split.value = Number(split.value) + step * (event.shiftKey ? 5 : 1);
    place(row, split);
  });
}

function place(row, split) {
  const left = row.querySelector(".left .label");
  row.style.setProperty("--split", `${split.value}%`);
  split.setAttribute("aria-valuetext", `${Math.round(split.value)}% ${left ? left.textContent : ""}`);
}

function arrange() {
  const view = chosen("view"), against = chosen("against") || "none";
  document.body.dataset.view = view;
  if (one("against")) one("against").hidden = view !== "slider";
  for (const row of all(".row")) {
    const kinds = row.dataset.kinds.split(" ");
    const left = row.querySelector(`.shot.${against}`) ? against : "none";
    const slides = view === "slider" && kinds.includes(left) && kinds.includes("after");
    row.classList.toggle("slides", Boolean(slides));
    row.classList.toggle("differs", view === "difference" && kinds.includes("difference"));
    for (const shot of all(".shot", row)) {
      shot.classList.toggle("left", Boolean(slides) && shot.classList.contains(left));
      shot.classList.toggle("right", Boolean(slides) && shot.classList.contains("after"));
    }
    const split = row.querySelector(".split");
    split.setAttribute("aria-label", `${left === "none" ? "no LoRA" : "before"} and after: `
      + row.querySelector("figcaption").textContent);
    place(row, split);
  }
}

if (one("view")) {
  one("view").addEventListener("change", arrange);
  if (one("against")) one("against").addEventListener("change", arrange);
  arrange();
}

if (one("recipes")) {
  one("recipes").addEventListener("change", (event) => {
    one(event.target.value).scrollIntoView();
  });
}

// --- a sweep: one place large, with the command that takes its scales ---

const places = all(".place");
let shown = 0;

function show(index) {
  shown = (index + places.length) % places.length;
  const place = places[shown], picture = place.querySelector("img");
  Object.assign(one("large-picture"), { src: picture.src, alt: picture.alt });
  one("large-name").textContent = place.dataset.name;
  one("large-command").hidden = !place.dataset.command;
  one("large-command").querySelector("code").textContent = place.dataset.command;
}

if (places.length) {
  const dialog = one("large");
  places.forEach((place, index) => place.addEventListener("click", () => {
    show(index);
    dialog.showModal();
  }));
  one("close").addEventListener("click", () => dialog.close());
  one("previous").addEventListener("click", () => show(shown - 1));
  one("next").addEventListener("click", () => show(shown + 1));
  dialog.addEventListener("close", () => places[shown].focus());
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) show(shown + step);
  });
}

for (const button of all(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      one("said").textContent = "Copied";
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
}
