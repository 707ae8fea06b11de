"use strict";
(() => {
  const sheet = JSON.parse(document.getElementById("sheet").textContent);
  const byId = (id) => document.getElementById(id);
  const slot = "human-study/" + sheet.study;
  // A sheet with a scale has one answer an item, rated from 1 to it; else the better of two answers is chosen.
  const scale = sheet.scale || 0;
  const options = scale ? Array.from({ length: scale }, (_, i) => String(i + 1)) : ["1", "2", "="];
  const column = scale ? "score" : "choice";
  const known = new Set(sheet.items.map((item) => item.item));
  const choices = new Map();
  let at = 0;
  let keeps = true;

  // ---- Choices are kept at once, wherever the browser can.

  function recall() {
    try {
      for (const [item, choice] of Object.entries(JSON.parse(localStorage.getItem(slot) || "{}"))) {
        accept(item, choice);
      }
    } catch {
      keeps = false;
    }
  }

  function keep() {
    try {
      localStorage.setItem(slot, JSON.stringify(Object.fromEntries(choices)));
    } catch {
      keeps = false;
    }
  }

  function accept(item, choice) {
    const good = known.has(item) && options.includes(choice);
    if (good) choices.set(item, choice);
    return good;
  }

  // ---- The file that is handed in.

  const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);

  function file() {
    const rows = sheet.items
      .filter((item) => choices.has(item.item))
      .map((item) => [sheet.study, sheet.rater, item.item, choices.get(item.item)].map(quoted).join(","));
    return ["study,rater,item," + column, ...rows].join("\n") + "\n";
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([file()], { type: "text/csv" }));
    link.download = "ratings-" + sheet.rater.replace(/[^\p{L}\p{N}_-]+/gu, "-") + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function load(input) {
    const lines = (await input.files[0].text()).split(/\r?\n/).slice(1).filter(Boolean);
    let taken = 0;
    for (const line of lines) {
      const [item, choice] = line.split(",").slice(-2);
      if (line.startsWith(sheet.study + ",") && accept(item, choice)) taken += 1;
    }
    input.value = "";
    keep();
    if (taken < lines.length) trouble(`${lines.length - taken} rows of that file belong to another sheet and were left out.`);
    begin();
  }

  // ---- What is shown.

  function text(words) {
    const box = document.createElement("div");
    box.className = "text";
    // Text between fences is code; everything else stands as it was written.
    words.split(/^```[^\n]*\n?/m).forEach((part, index) => {
      const trimmed = part.replace(/^\n+|\s+$/g, "");
      if (!trimmed) return;
      const element = document.createElement(index % 2 ? "pre" : "p");
      element.textContent = trimmed;
      box.append(element);
    });
    if (!box.children.length) {
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = "(an empty answer)";
      box.append(empty);
    }
    return box;
  }

  function answer(item, side) {
    const turns = item.answers[side];
    const body = [];
    if (turns.length > 1) {
      const earlier = document.createElement("details");
      earlier.className = "earlier";
      const summary = document.createElement("summary");
      summary.textContent = "Its earlier answer";
      earlier.append(summary, ...turns.slice(0, -1).map(text));
      body.push(earlier);
    }
    body.push(text(turns[turns.length - 1]));
    return body;
  }

  function prompt(item) {
    const parts = [];
    if (item.prompts.length > 1) {
      const earlier = document.createElement("details");
      earlier.className = "earlier";
      const summary = document.createElement("summary");
      summary.textContent = "The conversation’s first question";
      earlier.append(summary, ...item.prompts.slice(0, -1).map(text));
      parts.push(earlier);
    }
    parts.push(text(item.prompts[item.prompts.length - 1]));
    return parts;
  }

  function only(id) {
    for (const other of ["start", "pair", "end"]) byId(other).hidden = other !== id;
    byId("choices").hidden = id !== "pair";
    document.querySelector("header nav").hidden = id !== "pair";
    document.body.dataset.shows = id;
    window.scrollTo(0, 0);
  }

  function status() {
    const total = sheet.items.length;
    byId("position").textContent = `${Math.min(at + 1, total)} of ${total}`;
    byId("done").textContent = `· ${choices.size} rated`;
    byId("progress").style.width = `${(100 * choices.size) / total}%`;
    byId("progress").parentElement.setAttribute("aria-valuemax", total);
    byId("progress").parentElement.setAttribute("aria-valuenow", choices.size);
    byId("saved").textContent = keeps ? "" : "This browser keeps nothing: download before you close.";
    byId("saved").classList.toggle("bad", !keeps);
    byId("ratings").textContent = file();
  }

  function show(index) {
    at = Math.max(0, Math.min(index, sheet.items.length - 1));
    const item = sheet.items[at];
    const chosen = choices.get(item.item);
    byId("category").textContent = item.prompts.length > 1 ? `${item.category} · turn ${item.prompts.length}` : item.category;
    byId("prompt").replaceChildren(...prompt(item));
    for (const side of item.answers.keys()) {
      const box = byId(`answer-${side + 1}`);
      box.querySelector(".body").replaceChildren(...answer(item, side));
      box.classList.toggle("chosen", !scale && chosen === String(side + 1));
    }
    for (const button of document.querySelectorAll("[data-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === chosen));
    }
    byId("previous").disabled = at === 0;
    byId("next").disabled = at === sheet.items.length - 1;
    only("pair");
    status();
  }

  function choose(choice) {
    choices.set(sheet.items[at].item, choice);
    keep();
    if (choices.size === sheet.items.length) return finish();
    if (at + 1 < sheet.items.length) return show(at + 1);
    show(firstOpen());
  }

  function firstOpen() {
    const open = sheet.items.findIndex((item) => !choices.has(item.item));
    return open < 0 ? 0 : open;
  }

  function begin() {
    if (choices.size === sheet.items.length) return finish();
    show(firstOpen());
  }

  function finish() {
    const left = sheet.items.length - choices.size;
    byId("end-title").textContent = left ? `${left} left to ${scale ? "rate" : "compare"}` : "Done. Thank you!";
    byId("end-text").textContent = left
      ? "You can download what you have so far, as a copy to go on from. It can be handed in once nothing is left."
      : "Download your ratings and hand in the file.";
    only("end");
    status();
  }

  function trouble(words) {
    byId("trouble").textContent = words;
    byId("trouble").hidden = false;
  }

  function press(key) {
    if (document.body.dataset.shows === "start" && key === "Enter") return begin();
    if (document.body.dataset.shows !== "pair") return false;
    // The digit 0 is 10.
    const choice = scale && key === "0" ? "10" : key;
    if (options.includes(choice)) return choose(choice);
    if (key === "ArrowLeft") return show(at - 1);
    if (key === "ArrowRight") return show(at + 1);
    return false;
  }

  function rateOneAnswer() {
    byId("answer-2").remove();
    byId("answer-1").parentElement.classList.add("single");
    byId("answer-1").querySelector("h2").textContent = "The answer";
    byId("title").textContent = "How good is the answer?";
    byId("keys").textContent = `Press a digit from 1 (worst) to 9, or 0 for ${scale} (best). The arrow keys go back and forth; a rating can be changed.`;
    byId("hidden").textContent = "Who wrote an answer is hidden. Answers to one question follow each other in a random order.";
    byId("choices").classList.add("scale");
    byId("choices").replaceChildren(
      ...options.map((option) => {
        const button = document.createElement("button");
        button.dataset.choice = option;
        button.textContent = option;
        return button;
      }),
    );
  }
  if (scale) rateOneAnswer();

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // A button that has the focus is pressed by Enter itself.
    if (event.key === "Enter" && event.target instanceof HTMLButtonElement) return;
    if (press(event.key) !== false) event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => {
      button.blur();
      choose(button.dataset.choice);
    });
  }
  byId("previous").addEventListener("click", () => show(at - 1));
  byId("next").addEventListener("click", () => show(at + 1));
  byId("finish").addEventListener("click", finish);
  byId("begin").addEventListener("click", begin);
  byId("back").addEventListener("click", () => show(firstOpen()));
  byId("download").addEventListener("click", download);
  byId("load").addEventListener("change", (event) => load(event.target));

  byId("instructions").textContent = sheet.instructions;
  recall();
  if (choices.size) begin();
  else only("start");
  status();

  const keys = new URLSearchParams(location.hash.slice(1)).get("keys");
  for (const key of keys ? keys.split(",") : []) {
    document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  }
})();
