"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const byId = (id) => document.getElementById(id);
  const chart = byId("scores-chart");
  const [low, high, left, right] = ["low", "high", "left", "right"].map((name) => Number(chart.dataset[name]));
  const reject = byId("reject"), review = byId("review");
  const steps = Number(reject.max);
  // The model's own thresholds stay exact: a slider that was not touched gives the number it began with. Without
  // thresholds there are no verdicts until one is moved.
  const cuts = { reject: facts.reject, review: facts.review };
  const ofSlider = (slider) => low + (high - low) * Number(slider.value) / steps;
  const toSlider = (value) => Math.round(Math.min(Math.max((value - low) / (high - low), 0), 1) * steps);
  const across = (value) => left + (right - left) * Math.min(Math.max((value - low) / (high - low), 0), 1);
  const lowest = () => cuts.review ?? cuts.reject;
  // A part that registration did not find is not accepted, whatever its score.
  const verdict = (score, lost) =>
    cuts.reject === null ? "–" : score > cuts.reject ? "reject" : lost || score > lowest() ? "review" : "accept";
  const exact = (value, own) => value === own ? String(value) : value.toPrecision(6);
  const cards = Array.from(byId("images").children);
  const place = new Map(cards.map((card, number) => [card, number]));
  const judged = cards.map((card) => ({
    card, score: Number(card.dataset.score), lost: card.dataset.lost === "true", good: card.dataset.label === "good",
    badge: card.querySelector(".verdict"),
  }));

  const share = (count, of) => of ? `${count} (${(100 * count / of).toFixed(1)} %)` : "–";
  const rates = {};

  const showTable = () => {
    for (const label of ["good", "anomalous"]) {
      const counts = { accept: 0, review: 0, reject: 0 };
      facts[label].forEach((score, index) => { counts[verdict(score, facts.lost[label][index])] += 1; });
      const of = facts[label].length;
      rates[label] = of ? { accept: counts.accept / of, review: counts.review / of, reject: counts.reject / of } : null;
      for (const [name, count] of Object.entries(counts)) byId(`${label}-${name}`).textContent = share(count, of);
    }
  };

  const showShift = () => {
    const parts = Number(byId("speed").value) * Number(byId("shift").value);
    const bad = Number(byId("rate").value) / 100;
    const said = [];
    const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
    if (rates.good) said.push(`${number(parts * (1 - bad) * rates.good.reject)} false rejects`);
    if (rates.anomalous) said.push(`${number(parts * bad * rates.anomalous.accept)} escapes`);
    if (rates.good && rates.anomalous) {
      said.push(`${number(parts * ((1 - bad) * rates.good.review + bad * rates.anomalous.review))} reviews`);
    }
    byId("per-shift").textContent = `A shift of ${number(parts)} parts, if they are like these images: ${said.join(", ")}.`;
  };

  const showCards = () => {
    for (const one of judged) {
      const found = verdict(one.score, one.lost);
      if (found === one.verdict) continue;  // a page of hundreds of images is slow to lay out anew
      one.verdict = found;
      one.badge.textContent = found;
      one.badge.className = `verdict verdict-${found}`;
      one.card.classList.toggle("wrong", (found === "accept") !== one.good);
    }
  };

  const showChart = () => {
    for (const [name, value] of [["reject", cuts.reject], ["review", lowest()]]) {
      const line = byId(`cut-${name}`);
      line.setAttribute("d", line.getAttribute("d").replace(/^M[\d.]+/, `M${across(value).toFixed(1)}`));
    }
    const zone = (id, from, to) => {
      byId(id).setAttribute("x", across(from).toFixed(1));
      byId(id).setAttribute("width", Math.max(across(to) - across(from), 0).toFixed(1));
    };
    zone("zone-reject", cuts.reject, high);
    zone("zone-review", lowest(), cuts.reject);
  };

  const show = () => {
    if (cuts.reject === null) {
      byId("reject-value").textContent = byId("review-value").textContent = "(none)";
      return;
    }
    byId("reject-value").textContent = cuts.reject.toPrecision(4);
    byId("review-value").textContent = cuts.review === null ? "(no such zone)" : cuts.review.toPrecision(4);
    const setReview = cuts.review === null ? "none" : exact(cuts.review, facts.review);
    byId("command").textContent = `${facts.command} threshold=${exact(cuts.reject, facts.reject)} review=${setReview}`;
    showTable();
    showShift();
    showChart();
    showCards();
    if (byId("show").value === "wrong") filter();
  };

  const filter = () => {
    const wanted = byId("show").value;
    let shown = 0;
    for (const card of cards) {
      const seen = wanted === "all" || (wanted === "wrong" ? card.classList.contains("wrong") : card.dataset.kind === wanted);
      card.hidden = !seen;
      shown += seen;
    }
    byId("shown").textContent = `${shown} of ${cards.length} images.`;
  };

  const order = () => {
    const score = (card) => Number(card.dataset.score);
    const by = {
      worst: (a, b) => place.get(a) - place.get(b),
      high: (a, b) => score(b) - score(a),
      low: (a, b) => score(a) - score(b),
      name: (a, b) => a.dataset.name < b.dataset.name ? -1 : 1,
    }[byId("order").value];
    byId("images").append(...[...cards].sort(by));
  };

  reject.value = toSlider(cuts.reject ?? high);
  review.value = toSlider(lowest() ?? high);
  reject.addEventListener("input", () => {
    cuts.reject = ofSlider(reject);
    if (cuts.review !== null && cuts.review >= cuts.reject) cuts.review = null;
    if (cuts.review === null) review.value = reject.value;
    show();
  });
  review.addEventListener("input", () => {
    const value = ofSlider(review);
    cuts.reject ??= high;
    cuts.review = value < cuts.reject ? value : null;
    if (cuts.review === null) review.value = toSlider(cuts.reject);
    show();
  });
  for (const id of ["speed", "shift", "rate"]) byId(id).addEventListener("input", showShift);
  byId("show").addEventListener("change", filter);
  byId("order").addEventListener("change", order);
  show();
  filter();
})();
