
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const articles = all("article[data-question]");
  const entries = new Map(all("li[data-question]").map((li) => [li.dataset.question, li]));
  const finder = document.querySelector(".finder");
  const narrow = matchMedia("(max-width: 56rem)");
  let open = articles;

  const visibleModels = () => new Set(all("input[data-model]").filter((box) => box.checked).map((box) => box.dataset.model));

  const passes = (article, models) => {
    const { value: category } = get("category");
    if (category && article.dataset.category !== category) return false;
    const words = get("words").value.trim().toLowerCase();
    if (words && !article.textContent.toLowerCase().includes(words)) return false;
    const scores = all(".answer", article)
      .filter((answer) => models.has(answer.dataset.model))
      .flatMap((answer) => all("[data-score]", answer).map((mark) => mark.dataset.score));
    if (get("missing").checked && !scores.includes("")) return false;
    const low = parseFloat(get("low").value), high = parseFloat(get("high").value);
    const whole = low <= +get("low").min && high >= +get("high").max;
    return whole || scores.some((score) => score !== "" && +score >= low && +score <= high);
  };

  const filter = () => {
    const models = visibleModels();
    for (const part of all("[data-model]:not(input)")) part.hidden = !models.has(part.dataset.model);
    open = articles.filter((article) => passes(article, models));
    const kept = new Set(open.map((article) => article.dataset.question));
    for (const [question, entry] of entries) entry.hidden = !kept.has(question);
    get("count").textContent = `${open.length} of ${articles.length}`;
    document.querySelector(".nothing").hidden = open.length > 0;
    show();
  };

  const show = () => {
    const id = location.hash.slice(1) || "overview";
    let shown = open.find((article) => article.id === id);
    if (!shown && id !== "overview") shown = open[0];
    get("overview").hidden = Boolean(shown);
    document.querySelector(".list li").toggleAttribute("aria-current", !shown);
    for (const article of articles) article.hidden = article !== shown;
    for (const [question, entry] of entries) {
      entry.toggleAttribute("aria-current", shown?.dataset.question === question);
    }
    const entry = shown && entries.get(shown.dataset.question);
    if (entry && !narrow.matches) entry.scrollIntoView({ block: "nearest" });
  };

  const step = (by) => {
    const at = open.findIndex((article) => !article.hidden);
    const next = open[at < 0 ? 0 : (at + by + open.length) % open.length];
    if (next) location.hash = next.id;
  };

  document.body.classList.add("scripted");
  document.addEventListener("input", filter);
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.step");
    if (link) {
      event.preventDefault();
      step(+link.dataset.step);
    } else if (event.target.closest(".list a") && narrow.matches) {
      finder.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight" || event.key === "j") step(1);
    if (event.key === "ArrowLeft" || event.key === "k") step(-1);
  });
  addEventListener("hashchange", () => {
    show();
    scrollTo(0, 0);
  });
  if (narrow.matches) finder.open = false;
  filter();
  // The browser would scroll to the question that the address names, past the title.
  addEventListener("load", () => requestAnimationFrame(() => scrollTo(0, 0)));
})();
