/** A text that the model writes, token by token: each token is a request of its own to both parties. */

import { inTurn } from "../core/costs.js";
import { untrusted } from "./answers.js";
import { element } from "./dom.js";
import { counted, seconds } from "./figures.js";

/**
 * {shown, running}: an element that fills, and a promise of {cost, spent, said}. cost: null before the first token.
 *
 * begin    gives a text that grows (`Growing` of the core), anew for each attempt
 * parties  `Parties`
 * told     as `Parties.ask` takes it
 * signal   stops it: what was generated so far stays
 */
export function generate(begin, parties, told, signal) {
  const made = element("span", { class: "made" });
  const shown = element("div", { class: "stream", "aria-live": "polite", "aria-busy": "true", "data-running": "" },
    made);
  return { shown, running: run({ begin, parties, told, signal, shown, made }) };
}

async function run({ begin, parties, told, signal, shown, made }) {
  const spent = { splitting: 0, waiting: 0, joining: 0 };
  const started = performance.now();
  let [text, cost] = [null, null];
  const make = () => {
    const start = performance.now();
    if (cost === null) text = begin();
    const request = text.next();
    spent.splitting += (performance.now() - start) / 1e3;
    return request;
  };
  try {
    do {
      const { bodies } = await parties.ask(make, told, signal, { patient: cost === null });
      const start = performance.now();
      const step = text.take(bodies);
      cost = cost === null ? step.cost : inTurn(cost, step.cost);
      spent.joining += (performance.now() - start) / 1e3;
      if (step.trusted === false) {
        shown.replaceWith(untrusted());
        return { cost, spent, said: "The answer cannot be trusted, so the text is not shown." };
      }
      made.append(step.piece);
    } while (!text.ended);
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    shown.removeAttribute("data-running");
    shown.setAttribute("aria-busy", "false");
    spent.waiting = (performance.now() - started) / 1e3 - spent.splitting - spent.joining;
    if (text?.session) parties.end(text.session);
  }
  const tokens = text?.generated.length ?? 0;
  const each = tokens ? `, ${seconds((performance.now() - started) / 1e3 / tokens)} each` : "";
  return { cost, spent, said: `${signal.aborted ? "Stopped after" : "Done:"} ${counted(tokens, "token")}${each}.` };
}
