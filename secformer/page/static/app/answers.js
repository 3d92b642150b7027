/** Answers, as people and screen readers read them. A text that the guard marked has no answer here. */

import { element } from "./dom.js";
import { percent } from "./figures.js";

const LISTED = 10; // labels that are shown, the likeliest ones

/** What is said of a text whose values left the range that the computation is right in. */
export function untrusted(which = "This answer") {
  return element("div", { class: "untrusted" },
    element("p", {}, element("strong", {}, `${which} cannot be trusted.`)),
    element("p", {}, "A value inside the model left the range that the computation is right in. So what came back " +
      "may be wrong, and it is not shown. Another wording may help."));
}

/** A label, and the probabilities of all labels as bars. */
export function verdict({ label, probabilities }, labels) {
  const rows = Array.from(probabilities, (part, i) => ({ name: labels[i], part }))
    .sort((a, b) => b.part - a.part).slice(0, LISTED);
  const named = Array.isArray(label) ? label.join(", ") || "none of the labels" : label;
  const sure = !Array.isArray(label) && element("small", {}, percent(Math.max(...probabilities)));
  return element("div", {}, element("p", { class: "verdict" }, named, sure || null),
    element("table", { class: "bars" }, element("caption", {}, "Probability of each label"),
      element("tbody", {}, rows.map(({ name, part }, place) => element("tr", { class: place === 0 ? "best" : null },
        element("th", { scope: "row" }, name),
        element("td", { class: "meter" }, element("div", { class: "bar", "aria-hidden": "true" },
          element("span", { css: { "--part": part } }))),
        element("td", { class: "figure" }, percent(part)))))));
}

/** The score of a model with one output. */
export function score(value) {
  return element("p", { class: "verdict" }, value.toFixed(4), element("small", {}, "score"));
}

/** Outputs of a model whose numbers are no probabilities. */
export function numbers(values, labels) {
  return table("Outputs of the model", ["Output", "Value"], values.map((value, i) =>
    [labels[i] ?? String(i), value.toFixed(4)]));
}

/** Words for each mask of a text, the likeliest first: [{words: [{word, probability}]}]. */
export function masks(found) {
  if (!found.length) return element("p", {}, "The text has no mask, so there is no word to find.");
  return element("div", {}, found.map(({ words }, i) =>
    table(`Words for mask ${i + 1}`, ["Word", "Probability"], words.map(({ word, probability }) =>
      [word, percent(probability)]))));
}

/** How similar sentences are: the cosines of their vectors as a table with heat. `vectors`: null for a marked text. */
export function heat(texts, vectors) {
  const known = vectors.map((vector) => vector && unit(vector));
  const names = texts.map((_, i) => String(i + 1));
  const rows = texts.map((text, i) => element("tr", {},
    element("th", { scope: "row" }, element("b", {}, names[i]), element("span", {}, text)),
    texts.map((_, j) => cell(known[i], known[j], i === j))));
  return element("div", {},
    element("p", { class: "quiet" }, "Similarity of each two sentences: the cosine of their vectors, at most 1."),
    element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Similarities" },
      element("table", { class: "heat", "aria-label": "Similarity of each two sentences" },
        element("thead", {}, element("tr", {}, element("td", {}),
          names.map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, rows))));
}

function cell(first, second, same) {
  if (!first || !second) return element("td", { title: "cannot be trusted" }, "cannot be trusted");
  const cosine = dot(first, second);
  // at most 0.45, where the ink on it still has enough contrast
  const strength = same ? 0 : (0.45 * Math.max(0, cosine)).toFixed(3);
  return element("td", { class: same ? "value same" : "value", css: { "--strength": strength } }, cosine.toFixed(3));
}

/** The likeliest label of each token. */
export function tagged(tokens, { labels, probabilities }) {
  return table("Label of each token", ["Token", "Label", "Probability"], tokens.map((token, i) =>
    [token, String(labels[i]), percent(Math.max(...probabilities[i]))]));
}

/** Rows of texts; the first of each is its name. */
function table(caption, columns, rows) {
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    element("table", { class: "plain" }, element("caption", {}, caption),
      element("thead", {}, element("tr", {}, columns.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, rows.map(([name, ...values]) => element("tr", {}, element("th", { scope: "row" }, name),
        values.map((value) => element("td", {}, value)))))));
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function unit(vector) {
  const values = Array.from(vector);
  const length = Math.sqrt(dot(values, values)) || 1;
  return values.map((value) => value / length);
}
