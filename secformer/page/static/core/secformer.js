/**
 * The client in a browser: it tokenises and shares texts, and joins the parties' halves of answers. It sends nothing
 * itself; whoever uses it does (`POST /v1/infer` with the header X-Request-Id).
 *
 *     const model = await load((name) => fetch(`model/${name}`).then((response) => response.arrayBuffer()));
 *     const request = model.request([model.tokenize("a text")]);   // one body for each party
 *     const { texts, cost } = model.answer(request, bodies);
 */

import { joined } from "./answers.js";
import { InputError, ModelError, ProtocolError } from "./errors.js";
import { Growing } from "./generation.js";
import { reading } from "./inputs.js";
import { freshId, halvesOf } from "./requests.js";
import { texts } from "./results.js";
import { Tokenizer } from "./tokenizer/tokenizer.js";

export { InputError, ModelError, ProtocolError };

const FORMAT = "secformer page 1";

/**
 * The model of a page's folder, which `page_model` wrote. `read(name)` gives the bytes of its files, as a Promise of an
 * ArrayBuffer. Throws ModelError for a folder of another version.
 */
export async function load(read) {
  const [facts, json] = await Promise.all(["model.json", "tokenizer.json"].map(async (name) =>
    JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await read(name)))));
  if (facts.format !== FORMAT) {
    throw new ModelError(`this page reads the format ${FORMAT}, and its model has ${facts.format}; make the page again`);
  }
  return new Model(facts, new Tokenizer(json, facts.tokenizer));
}

export class Model {
  constructor(facts, tokenizer) {
    this.facts = facts;
    this.tokenizer = tokenizer;
  }

  /** What its answers are: "labels", "embedding", "tokens" or "text". */
  get kind() {
    return this.facts.kind;
  }

  /** Names of classes, in the order of probabilities. */
  get labels() {
    return this.facts.labels;
  }

  /** What a party's `GET /v1/model` must give as its `digest`. */
  get digest() {
    return this.facts.digest;
  }

  /** Throws ProtocolError where a party's description (parsed JSON) is not that of this model. */
  requireSame(rank, description) {
    if (description?.digest !== this.digest) {
      throw new ProtocolError(`party ${rank} holds model ${description?.digest}, but this page knows ${this.digest}; ` +
        "make the page from the clients' folder of the same provisioning");
    }
  }

  /**
   * {ids, segments, tokens} of a text, or of a pair [first, second].
   *
   * truncation  cut what is too long
   * number      of the text among others, in errors
   * Throws InputError for what the model cannot take.
   */
  tokenize(text, { truncation = false, number = 0 } = {}) {
    return reading(this.facts, this.tokenizer, text, truncation, number);
  }

  /**
   * A fresh request for one or more readings, as `tokenize` gives them: {id, halves, readings}. Party i gets halves[i]
   * alone. Who would see both could read the texts.
   */
  request(readings) {
    const listed = Array.isArray(readings) ? readings : [readings];
    if (!listed.length) throw new InputError("a request holds at least one text; give what tokenize returned");
    const id = freshId();
    return { id, halves: halvesOf(this.facts, listed, id), readings: listed };
  }

  /**
   * What the parties' answers say: {texts, cost}. For each text `trusted` (false: values left the ranges that the
   * model was measured for, so the answer may be wrong; null: the model has no guard), and by the kind of model
   *
   *     labels     label, probabilities, logits; or score
   *     embedding  vector
   *     tokens     labels and probabilities of each token; or masks: [{token, words: [{id, word, probability}]}]
   *
   * bodies  party 0's and party 1's, ArrayBuffer or Uint8Array
   * Throws ProtocolError for answers that do not belong together.
   */
  answer(request, bodies) {
    const { values, cost } = joined(bodies, request.id, this.facts.names, this.facts.frac);
    this.requireShapes(request, values);
    return { texts: texts(this.facts, this.tokenizer, request.readings, values), cost };
  }

  /** Whether `text` takes messages. */
  get converses() {
    return Boolean(this.facts.generation?.conversation);
  }

  /**
   * A text that the model continues, of the kind "text" (see `Growing`), for up to `most` new tokens:
   *
   *     const text = model.text(prompt);
   *     while (!text.ended) {
   *       const request = text.next();                    // one body for each party, as of `request`
   *       const { piece } = text.take(bodies);
   *     }
   *     // then end its session at both parties: DELETE /v1/sessions/ with text.session
   *
   * prompt  a string, or messages of user and assistant in turns, the user's first and last
   * Throws InputError for a prompt that the model cannot take.
   */
  text(prompt, { most = 20 } = {}) {
    if (this.kind !== "text") throw new InputError("this model does not tell the next token, so it generates no text");
    return new Growing(this.facts, this.tokenizer, prompt, most);
  }

  /** Throws ProtocolError where a result does not have a row for each token, or for each text. */
  requireShapes(request, values) {
    const tokens = request.readings.reduce((total, each) => total + each.ids.length, 0);
    for (const [name, { shape }] of Object.entries(values)) {
      const wanted = this.facts.by_token[name] ? tokens : request.readings.length;
      if (shape[0] !== wanted) {
        throw new ProtocolError(`${name} has the shape (${shape}), but the request has ${wanted} rows of it; do all ` +
          "roles run the same version?");
      }
    }
  }
}
