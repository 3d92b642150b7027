/** What an answer cost, as the parties counted it: figures, a small picture, and the same as a table. */

import { drawn, element } from "./dom.js";
import { bytes, count, seconds } from "./figures.js";

const COUNTERS = ["seconds", "bytes", "rounds"];
const MOST = 6;      // parts with a colour of their own; smaller ones are one part
const READ = { seconds, bytes, rounds: count };
const OTHER = "other";

/**
 * cost   a tree of scopes, {name, seconds, bytes, rounds, ..., children}
 * spent  what this browser measured, in seconds: {splitting, waiting, joining}
 */
export function costs(cost, spent) {
  const parts = byPart(cost);
  return element("div", {},
    element("dl", { class: "figures" }, [
      ["from question to answer", seconds(spent.splitting + spent.waiting + spent.joining)],
      ["computing, by the slower party", seconds(cost.seconds)],
      ["rounds of messages", count(cost.rounds)], ["between the parties", bytes(cost.bytes)],
    ].map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
    picture(parts), legend(parts), table(parts),
    element("p", { class: "quiet" }, `In this browser: ${seconds(spent.splitting)} to split the text, ` +
      `${seconds(spent.waiting)} to wait for the parties, ${seconds(spent.joining)} to put the answer together. The ` +
      `dealer sent ${bytes(cost.dealer_bytes)} of randomness; it sees no text.`));
}

/** The figures of the innermost scopes, summed by name, the most expensive first: [{name, seconds, bytes, rounds}]. */
export function byPart(cost) {
  const found = new Map();
  collect(cost, found);
  const parts = [...found.values()].sort((a, b) => b.seconds - a.seconds || b.bytes - a.bytes);
  const [shown, rest] = [parts.slice(0, MOST - 1), parts.slice(MOST - 1)];
  return rest.length < 2 ? parts : [...shown, rest.reduce((sum, part) => added(sum, part), { name: "all others" })];
}

function collect(scope, found) {
  const own = { name: scope.name };
  for (const key of COUNTERS) {
    own[key] = Math.max(0, scope[key] - scope.children.reduce((sum, child) => sum + child[key], 0));
  }
  if (scope.children.length && !own.bytes && !own.rounds) own.name = OTHER;
  if (COUNTERS.some((key) => own[key])) found.set(own.name, added(found.get(own.name) ?? { name: own.name }, own));
  for (const child of scope.children) collect(child, found);
}

function added(sum, part) {
  return { name: sum.name, ...Object.fromEntries(COUNTERS.map((key) => [key, (sum[key] ?? 0) + part[key]])) };
}

const shade = (place) => `var(--c${place % MOST})`;

/** A bar for each of time, traffic and rounds; each is cut into the parts of the model. */
function picture(parts) {
  return element("div", { class: "picture", role: "img",
    "aria-label": "Time, traffic and rounds by part of the model. The table has the figures." },
    COUNTERS.flatMap((key) => {
      const total = parts.reduce((sum, part) => sum + part[key], 0);
      let x = 0;
      const pieces = parts.map((part, place) => {
        const width = total ? 100 * part[key] / total : 0;
        const piece = drawn("rect", { x: x.toFixed(3), y: 0, width: width.toFixed(3), height: 1 },
          drawn("title", {}, `${part.name}: ${READ[key](part[key])}`));
        piece.style.fill = shade(place);
        x += width;
        return piece;
      });
      return [element("span", {}, NAMES[key]),
        drawn("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none" }, pieces),
        element("span", {}, READ[key](total))];
    }));
}

const NAMES = { seconds: "time", bytes: "traffic", rounds: "rounds" };

function legend(parts) {
  return element("ul", { class: "legend", "aria-hidden": "true" }, parts.map((part, place) =>
    element("li", {}, element("span", { class: "key", css: { "--shade": shade(place) } }), part.name)));
}

function table(parts) {
  return element("details", {}, element("summary", {}, "By part of the model"),
    element("div", { class: "wide" }, element("table", { class: "plain" },
      element("thead", {}, element("tr", {}, ["Part", "Time", "Traffic", "Rounds"].map((name) =>
        element("th", { scope: "col" }, name)))),
      element("tbody", {}, parts.map((part, place) => element("tr", {},
        element("th", { scope: "row" }, element("span", { class: "key", "aria-hidden": "true",
          css: { "--shade": shade(place) } }), part.name),
        COUNTERS.map((key) => element("td", {}, READ[key](part[key])))))))));
}
