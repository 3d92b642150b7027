/** One answer, from the tokens to the picture of its cost. */

import { heat, masks, numbers, score, tagged, untrusted, verdict } from "./answers.js";
import { costs } from "./cost.js";
import { byId, element } from "./dom.js";
import { percent, seconds } from "./figures.js";
import { generate } from "./generating.js";
import { PartyPanel } from "./noise.js";
import { sums } from "./sums.js";

export class Asking {
  #model;
  #parties;
  #panels;
  #ending = new AbortController();

  constructor(model, parties) {
    this.#model = model;
    this.#parties = parties;
    this.#panels = parties.urls.map((url, rank) => new PartyPanel(rank, url));
    byId("parties").replaceChildren(...this.#panels.map((panel) => panel.shown));
  }

  stop() {
    this.#ending.abort();
  }

  /** Asks, and shows the answer or what went wrong. */
  async run(readings, texts, options) {
    this.#ending = new AbortController();
    const { signal } = this.#ending;
    for (const id of ["answered", "spent"]) byId(id).hidden = true;
    say("Splitting the text …");
    running(true);
    try {
      if (this.#model.kind === "text") await this.#generate(texts[0], options, signal);
      else await this.#answer(readings, texts, signal);
    } catch (error) {
      for (const panel of this.#panels) panel.ended("");
      say(signal.aborted ? "Stopped." : "");
      if (!signal.aborted) this.#failed(error);
    } finally {
      running(false);
    }
  }

  async #answer(readings, texts, signal) {
    const spent = { splitting: 0, waiting: 0, joining: 0 };
    const make = () => timed(spent, "splitting", () => this.#model.request(readings));
    const asked = performance.now();
    const { request, bodies } = await this.#parties.ask(make, this.#told(), signal);
    spent.waiting = (performance.now() - asked) / 1e3 - spent.splitting;
    const answer = timed(spent, "joining", () => this.#model.answer(request, bodies));
    byId("answer").replaceChildren(this.#shown(answer.texts, readings, texts),
      ...(this.#model.kind === "labels" && answer.texts[0].trusted !== false ? [sums(bodies, this.#model)] : []));
    reveal("answered");
    this.#cost(answer.cost, spent);
    const total = seconds(spent.splitting + spent.waiting + spent.joining);
    say(`Answered in ${total}${this.#inWords(answer.texts)}.`);
  }

  async #generate(prompt, options, signal) {
    const { shown, running } = generate(() => this.#model.text(prompt, options), this.#parties, this.#told(), signal);
    byId("answer").replaceChildren(shown);
    reveal("answered");
    const { cost, spent, said } = await running;
    if (cost) this.#cost(cost, spent);
    for (const panel of this.#panels) panel.rested();
    say(said);
  }

  /** What the panels show of requests. Only the first of an answer clears what was shown before. */
  #told() {
    let first = true;
    return {
      sent: ({ halves }) => {
        reveal("sent");
        halves.forEach((half, rank) => this.#panels[rank].sent(half, first));
        if (first) say("Both parties compute …");
        first = false;
      },
      answered: (rank, body) => this.#panels[rank].answered(body),
      again: (why) => {
        first = true;
        say(why);
      },
    };
  }

  #shown(results, readings, texts) {
    const { kind, labels } = this.#model;
    const marked = results.filter(({ trusted }) => trusted === false);
    if (kind === "embedding") {
      return element("div", {}, marked.length ? untrusted(marked.length === results.length ? "These answers" :
        "An answer") : null, heat(texts, results.map((each) => (each.trusted === false ? null : each.vector))));
    }
    if (marked.length) return untrusted();
    const [result] = results;
    if (result.masks) return masks(result.masks);
    if (kind === "tokens") return tagged(readings[0].tokens, result);
    if (result.score !== undefined) return score(result.score);
    return result.probabilities ? verdict(result, labels) : numbers(result.logits, labels);
  }

  #inWords(results) {
    if (results.some(({ trusted }) => trusted === false)) return ", but an answer cannot be trusted";
    const [{ label, probabilities }] = results;
    return typeof label === "string" && probabilities ? `: ${label}, ${percent(Math.max(...probabilities))}` : "";
  }

  #cost(cost, spent) {
    byId("cost").replaceChildren(costs(cost, spent));
    reveal("spent");
  }

  #failed(error) {
    byId("answer").replaceChildren(element("div", { class: "problem", role: "alert" },
      element("p", {}, element("strong", {}, "There is no answer.")), element("p", {}, error.message)));
    reveal("answered");
  }
}

function timed(spent, part, work) {
  const start = performance.now();
  const result = work();
  spent[part] += (performance.now() - start) / 1e3;
  return result;
}

function say(text) {
  byId("status").textContent = text;
}

function reveal(id) {
  byId(id).hidden = false;
}

/** The lines between the text and the parties move, and the state stays in sight. */
function running(now) {
  for (const fork of document.querySelectorAll(".fork")) fork.classList.toggle("flowing", now);
  byId("status").toggleAttribute("data-done", !now);
}
