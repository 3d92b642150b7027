/**
 * A text that grows at the parties, token by token: its session, its steps, and what was generated so far. The same
 * messages as `roles/decoding.py` sends, and the same pieces of text as `models/generation/stops.py` gives.
 */

import { joined } from "./answers.js";
import { InputError, ProtocolError } from "./errors.js";
import { requireIds, requireUnicode } from "./inputs.js";
import { freshId, halvesOf } from "./requests.js";
import { GUARD, largest } from "./results.js";

const MISSING = "\ufffd"; // bytes that are not a whole character yet
const CONTEXT = 8; // tokens of the prompt that generated ones are decoded behind
const LOGITS = "logits";
const ENDS = { token: "end token", length: "length", closed: "closed" };

export class Growing {
  /**
   * facts, tokenizer  the model's
   * prompt  a string, which the model continues; or messages of user and assistant in turns, which it answers
   * most    new tokens
   * Throws InputError for a prompt that the model cannot take. Nothing is sent then.
   */
  constructor(facts, tokenizer, prompt, most) {
    this.facts = facts;
    this.tokenizer = tokenizer;
    this.most = most;
    this.ids = promptIds(facts, tokenizer, prompt, most);
    this.generated = [];
    this.text = "";
    this.ended = null; // why it ended
    this.trusted = facts.guarded ? true : null;
    this.session = null; // its id, once something was sent
    this.name = freshId();
    this.length = facts.prefix.length; // tokens that the parties have
    this.waiting = this.ids.slice(this.length);
    this.before = this.ids.slice(-CONTEXT);
    this.skipped = Array.from(tokenizer.text(this.before)).length;
    this.asked = null;
  }

  /** How the vocabulary spells the prompt's tokens. */
  get tokens() {
    return this.ids.map((id) => this.tokenizer.spelling(id));
  }

  /**
   * The next request: {id, halves, session}. A long prompt takes several. Throws ProtocolError for a text that has
   * ended, and while an answer is awaited.
   */
  next() {
    if (this.ended) throw new ProtocolError(`this text has ended (${this.ended}); begin a new one`);
    if (this.asked) throw new ProtocolError("the parties' answers to the last step are still to come; take them first");
    const id = this.session === null ? this.name : freshId();
    const ids = this.waiting.slice(0, this.facts.generation.at_once);
    const reading = { ids, segments: ids.map(() => 0) };
    const step = { session: this.name, keep: this.length, last: 1 };
    const halves = halvesOf(this.facts, [reading], id, step);
    this.session = this.name;
    this.asked = { id, count: ids.length };
    return { id, halves, session: this.session };
  }

  /**
   * What the parties' answers to the last request give: {piece, token, trusted, cost}. The piece is often empty, and
   * the token is null while the prompt is not through. Throws ProtocolError for answers that do not belong together;
   * then the text has ended.
   */
  take(bodies) {
    if (!this.asked) throw new ProtocolError("no answers are awaited; ask with next first");
    const { id, count } = this.asked;
    this.asked = null;
    let found;
    try {
      found = joined(bodies, id, this.facts.names, this.facts.frac);
      this.requireShapes(found.values);
    } catch (error) {
      this.ended = ENDS.closed;
      throw error;
    }
    if (this.facts.guarded && !found.values[GUARD].data.every((word) => word === 0)) this.trusted = false;
    this.length += count;
    this.waiting = this.waiting.slice(count);
    if (this.waiting.length) return { piece: "", token: null, trusted: this.trusted, cost: found.cost };
    const token = largest(found.values[LOGITS].data);
    return { piece: this.chosen(token), token, trusted: this.trusted, cost: found.cost };
  }

  /** Ends the text here. Its session stays with the parties until they are asked to end it. */
  close() {
    this.ended ??= ENDS.closed;
  }

  chosen(token) {
    this.generated.push(token);
    this.waiting = [token];
    if (this.facts.generation.ends.includes(token)) {
      this.ended = ENDS.token;
      return this.given(this.decoded(this.generated.slice(0, -1)));
    }
    const whole = this.decoded(this.generated);
    if (this.generated.length >= this.most) {
      this.ended = ENDS.length;
      return this.given(whole);
    }
    let end = whole.length;
    while (end && whole[end - 1] === MISSING) end -= 1;
    return this.given(whole.slice(0, end));
  }

  decoded(ids) {
    return Array.from(this.tokenizer.text([...this.before, ...ids])).slice(this.skipped);
  }

  given(characters) {
    const piece = characters.slice(Array.from(this.text).length).join("");
    this.text += piece;
    return piece;
  }

  requireShapes(values) {
    const shape = values[LOGITS].shape;
    if (`${shape}` !== `${[1, this.facts.words]}`) {
      throw new ProtocolError(`the logits of a step have the shape (${shape}), but the model has ${this.facts.words} ` +
        "words; do all roles run the same version?");
    }
  }
}

/** The prompt's tokens, as `render` of the Python client makes them. */
function promptIds(facts, tokenizer, prompt, most) {
  if (!Number.isInteger(most) || most < 1) throw new InputError(`new tokens are a positive whole number, got ${most}`);
  const ids = typeof prompt === "string" ? continued(tokenizer, prompt) : conversed(facts, tokenizer, prompt);
  if (!ids.length) {
    throw new InputError("the prompt is empty, so there is nothing to continue; give at least one token of text");
  }
  requireIds(facts, ids, 0);
  if (ids.length + most > facts.context) {
    throw new InputError(`the prompt has ${ids.length} tokens and max_new_tokens is ${most}, together ` +
      `${ids.length + most}; this model's context holds ${facts.context}. Shorten the prompt, or generate fewer tokens`);
  }
  const before = facts.prefix.length;
  if (ids.length <= before || !facts.prefix.every((id, i) => ids[i] === id)) {
    throw new InputError(`the prompt does not begin with the model's public prefix of ${before} tokens, so its first ` +
      "tokens would be secret, and at the first token of a text, values are often larger than words hold. Give " +
      "messages, if the model has a chat template");
  }
  return ids;
}

function continued(tokenizer, prompt) {
  requireUnicode(prompt, "the prompt");
  return prompt ? tokenizer.encode(prompt).ids : [];
}

/** Messages of user and assistant in turns, trimmed, with the texts of the chat template around them. */
function conversed(facts, tokenizer, messages) {
  const { conversation } = facts.generation;
  const fits = Array.isArray(messages) && messages.length % 2 === 1 &&
    messages.every((message) => typeof message === "string");
  if (!fits) {
    throw new InputError("a prompt is a string, or a list of strings: messages of user and assistant in turns, the " +
      "user's first and last");
  }
  if (!conversation) {
    throw new InputError("this page holds no conversations with this model: it has no chat template, or one that is " +
      "more than texts around messages. Give the prompt as one text");
  }
  messages.forEach((message, i) => requireUnicode(message, `the content of message ${i}`));
  const parts = messages.map((message, i) =>
    (i === 0 ? "" : i % 2 ? conversation.answer : conversation.again) + message.trim());
  return tokenizer.encode(conversation.begin + parts.join("") + conversation.answer, undefined, { special: false }).ids;
}
