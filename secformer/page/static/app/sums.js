/** How two halves of an answer become numbers: words of 64 bits, added modulo 2^64. */

import { unpack } from "../core/safetensors.js";
import { element } from "./dom.js";

const SHOWN = 6;
const LOGITS = "logits";

/** The first logits as their two halves and their sum. bodies: of both parties; model: with `labels` and `facts`. */
export function sums(bodies, model) {
  const [first, second] = bodies.map((body) => new BigUint64Array(unpack(body).arrays[LOGITS].bytes.slice().buffer));
  const rows = Array.from(first.subarray(0, SHOWN), (word, i) => element("tr", {},
    element("th", { scope: "row" }, model.labels[i] ?? String(i)),
    [word, second[i]].map((half) => element("td", {}, element("code", {}, half.toString(16).padStart(16, "0")))),
    element("td", {}, value(word + second[i], model.facts.frac).toFixed(4))));
  return element("details", {}, element("summary", {}, "How the two halves make the answer"),
    element("p", { class: "quiet" }, `Each half is a random number of 64 bits. Their sum, modulo 2^64 and divided by ` +
      `2^${model.facts.frac}, is what the model says: a logit for each label.`),
    element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Halves and sums" },
      element("table", { class: "plain" },
        element("thead", {}, element("tr", {}, ["Label", "Party 0's half", "Party 1's half", "Sum"].map((name) =>
          element("th", { scope: "col" }, name)))),
        element("tbody", {}, rows))));
}

function value(word, frac) {
  return Number(BigInt.asIntN(64, word)) / 2 ** frac;
}
