/** What a person types: its tokens, what is wrong with it, and when it is sent. */

import { chips } from "./chips.js";
import { byId, element } from "./dom.js";
import { count, counted } from "./figures.js";

const PAUSE = 120; // milliseconds without a key before a text is tokenised

const KINDS = {
  labels: {
    title: "Your text", label: "Text", hint: "",
    examples: [["a good film", "A wonderful film, warm and funny."], ["a bad film", "A dull, lifeless mess."]],
  },
  tokens: { title: "Your text", label: "Text", hint: "", examples: [] },
  embedding: {
    title: "Your sentences", label: "Sentences, one per line", rows: 5,
    hint: "Give at least two sentences, to see how similar they are.",
    examples: [["three sentences",
      "A cat sat on the mat.\nA kitten was resting on a rug.\nThe shares fell by two percent."]],
  },
  text: { title: "Your prompt", label: "Prompt", hint: "", examples: [] },
};

export class Form {
  #model;
  #kind;
  #timer = 0;
  #running = false;

  constructor(model) {
    this.#model = model;
    this.#kind = KINDS[model.kind];
    const { title, label, hint, rows, examples } = this.#kind;
    byId("ask-title").textContent = title;
    byId("text-label").textContent = label;
    byId("hint").textContent = `${hint} Ctrl+Enter asks.`.trim();
    if (rows) byId("text").rows = rows;
    byId("second-field").hidden = !takesPairs(model);
    byId("length-field").hidden = model.kind !== "text";
    if (examples.length) byId("examples").append("Try", ...examples.map(([name, text]) => this.#example(name, text)));
  }

  /** run(readings, texts, options): asks, until the promise is settled; stop(): ends that. */
  connect(run, stop) {
    for (const id of ["text", "second", "length"]) {
      byId(id).addEventListener("input", () => {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#look(false), PAUSE);
      });
      byId(id).addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
      });
    }
    byId("form").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (this.#running) {
        stop();
        return;
      }
      clearTimeout(this.#timer);
      const readings = this.#look(true);
      if (readings === null) {
        byId("text").focus();
        return;
      }
      this.#show(true);
      try {
        await run(readings, this.#prompts(), { most: this.#length() });
      } finally {
        this.#show(false);
      }
    });
  }

  /** The texts' tokens, shown; null where something is wrong with them, which is told. An empty text is wrong only when
   * it is `sent`. */
  #look(sent) {
    const texts = this.#texts();
    let problem = "";
    let readings = [];
    try {
      readings = this.#model.kind === "text" ?
        this.#prompts().map((prompt) => this.#model.text(prompt, { most: this.#length() })) :
        texts.map((text, number) => this.#model.tokenize(text, { number }));
      if (sent) problem = this.#missing(texts);
    } catch (error) {
      problem = error.message;
    }
    const field = byId("text");
    byId("mistake").textContent = problem;
    byId("mistake").hidden = !problem;
    if (problem) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    const known = this.#model.kind === "text" ? this.#model.facts.prefix.length : 0;
    byId("chips").replaceChildren(...chips(readings, known));
    byId("count").textContent = readings.length === 0 ? "Type a text to see its tokens." :
      `${readings.length > 1 ? `${count(readings.length)} texts, ` : ""}` +
      `${counted(readings.reduce((sum, { ids }) => sum + ids.length, 0), "token")}. ` +
      "The parties learn how many tokens a text has, and nothing else of it.";
    return problem ? null : readings;
  }

  #missing(texts) {
    if (this.#model.kind === "embedding" && texts.length < 2) return "Give at least two sentences, one per line.";
    return texts.length ? "" : "Type a text first.";
  }

  #texts() {
    const [text, second] = [byId("text").value, byId("second").value];
    if (this.#model.kind === "embedding") return text.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!text.trim()) return [];
    return second.trim() && !byId("second-field").hidden ? [[text, second]] : [text];
  }

  /** Texts as the model is asked: a prompt is a message, where it answers those. */
  #prompts() {
    return this.#model.kind === "text" && this.#model.converses ? this.#texts().map((text) => [text]) : this.#texts();
  }

  #length() {
    const { value, min, max } = byId("length");
    return Math.min(Number(max), Math.max(Number(min), Number.parseInt(value, 10) || 1));
  }

  #show(running) {
    this.#running = running;
    byId("ask").textContent = running ? "Stop" : "Ask";
    byId("ask").toggleAttribute("data-running", running);
  }

  #example(name, text) {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => {
      byId("text").value = text;
      this.#look(false);
      byId("text").focus();
    });
    return button;
  }
}

/** Whether the model tells the second text of a pair from the first. */
function takesPairs(model) {
  if (model.kind !== "labels") return false;
  try {
    return Math.max(...model.tokenize(["a", "b"]).segments) > 0;
  } catch {
    return false;
  }
}
