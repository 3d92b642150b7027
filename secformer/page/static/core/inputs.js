/** Texts as token ids, checked before anything is shared, with the Python client's rules and words. */

import { InputError } from "./errors.js";

const ESCAPED = [0xdc80, 0xdd00];
const PARTS = ["the first", "the second"];

/**
 * {ids, segments, tokens} of a text or a pair of texts.
 *
 * facts      of the model
 * tokenizer  its Tokenizer
 * given      a string, or [first, second]
 * truncation whether a text that is too long is cut
 * number     of the text, in errors
 */
export function reading(facts, tokenizer, given, truncation, number) {
  const texts = typeof given === "string" ? [given] : given;
  const pair = Array.isArray(texts) && texts.length === 2;
  if (!(typeof given === "string" || pair) || !texts.every((text) => typeof text === "string")) {
    throw new InputError("a text must be a string, or a pair of strings [first, second]");
  }
  texts.forEach((text, part) =>
    requireUnicode(text, pair ? `text ${number}, ${PARTS[part]} of its pair,` : `text ${number}`));
  const most = truncation ? facts.context : undefined;
  const found = tokenizer.encode(facts.prompt + texts[0], texts[1], { most });
  const kinds = facts.segments && facts.tokenizer.types ? found.types : found.ids.map(() => 0);
  if (pair && Math.max(0, ...kinds) >= Math.max(1, facts.segments)) {
    throw new InputError("the tokenizer puts the second text of a pair into segment 1, but this model has " +
      `${facts.segments} segment(s) (type_vocab_size in config.json), so it takes no pairs; give single texts`);
  }
  let row = { ids: found.ids, segments: kinds };
  requireIds(facts, row.ids, number);
  row = behind(facts, row, number);
  if (row.ids.length > facts.longest) {
    if (!truncation) {
      throw new InputError(`text ${number} has ${row.ids.length} tokens; this model takes at most ${facts.longest}. ` +
        "Shorten it, or let it be cut: truncation");
    }
    row = { ids: row.ids.slice(0, facts.longest), segments: row.segments.slice(0, facts.longest) };
  }
  return { ...row, tokens: row.ids.map((id) => tokenizer.spelling(id)) };
}

/** Throws InputError for half of a surrogate pair alone. `name` is what the text is called, such as "text 3". */
export function requireUnicode(text, name) {
  let place = 0; // counts characters
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code >= 0xd800 && code < 0xe000) {
      const shown = code.toString(16).toUpperCase();
      const why = code >= ESCAPED[0] && code < ESCAPED[1] ?
        `is not valid UTF-8: character ${place} (counted from 0) stands for the byte ` +
          `0x${(code - 0xdc00).toString(16).toUpperCase()}, which could not be decoded; convert the text to UTF-8` :
        `is not valid Unicode: character ${place} (counted from 0) is U+${shown}, half of a surrogate pair; ` +
          "replace it, or decode the text again";
      throw new InputError(`${name} ${why}`);
    }
    place += 1;
  }
}

/** Throws InputError for tokens that the model does not take. */
export function requireIds(facts, ids, number) {
  if (!ids.length) {
    throw new InputError(`text ${number} has no token to attend to: its attention_mask is all 0, or it has no ids`);
  }
  const [least, most] = [Math.min(...ids), Math.max(...ids)];
  if (least < 0 || most >= facts.words) {
    throw new InputError(`text ${number}: input_ids must lie in 0..${facts.words - 1} for this model; got ` +
      `${least}..${most}. Was it tokenised for another model?`);
  }
  const padding = facts.pad === null ? -1 : ids.indexOf(facts.pad);
  if (padding >= 0) {
    throw new InputError(`text ${number}: token ${padding} is the padding token, but its attention_mask is 1. This ` +
      `model counts positions without padding tokens (id ${facts.pad}), and only the mask is public, so the mask must ` +
      "be 0 at padding tokens and 1 elsewhere; remove that token, or mask it");
  }
}

/** A text that begins with the public prefix without it: the model has that already. */
function behind(facts, row, number) {
  const before = facts.prefix.length;
  if (!before || !facts.prefix.every((id, i) => row.ids[i] === id)) return row;
  if (row.ids.length === before) {
    throw new InputError(`text ${number} is the model's public prefix of ${before} tokens and nothing else; give at ` +
      "least one token that follows it");
  }
  return { ids: row.ids.slice(before), segments: row.segments.slice(before) };
}
