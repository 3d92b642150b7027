/** Byte-level BPE, as decoders and RoBERTa tokenise: words by a pattern, their bytes as characters, merged in pairs. */

import { ModelError } from "../errors.js";
import { Ranges } from "./characters.js";

const PATTERN = String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const FOLDED = { s: "\u017f", k: "\u212a" }; // what else is the same letter where case does not matter
const PAIR = 2 ** 26; // above every id
const utf8 = new TextEncoder();

/** The character that stands for each byte, and back. */
const SHOWN = (() => {
  const own = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(own(byte) ? byte : next++));
})();
const BYTES = new Map(SHOWN.map((character, byte) => [character, byte]));

/** The pre-tokenizer of a tokenizer.json: steps, each of which cuts all pieces of the one before. */
export class ByteWords {
  constructor(config, tables) {
    const [letters, numbers, spaces, digits] = [tables.letters, tables.numbers, tables.spaces, tables.digits].map(
      (bounds) => new Ranges(bounds));
    const classes = { "\\p{L}": letters.source, "\\p{N}": numbers.source, "\\s": spaces.source };
    const given = config.type === "Sequence" ? config.pretokenizers : [config];
    this.steps = given.flatMap((step) => stepsOf(step, classes, digits));
  }

  split(text) {
    return this.steps.reduce((pieces, step) => pieces.flatMap(step), [text]).filter((piece) => piece);
  }
}

function stepsOf(config, classes, digits) {
  if (config.type === "Digits") {
    const pattern = new RegExp(`[${digits.source}]${config.individual_digits ? "" : "+"}`, "gu");
    return [(piece) => cut(piece, pattern)];
  }
  if (config.type === "Split" && config.behavior === "Isolated" && !config.invert) {
    const pattern = new RegExp(translated(config.pattern.Regex, classes), "gu");
    return [(piece) => cut(piece, pattern)];
  }
  if (config.type === "ByteLevel") {
    const steps = config.add_prefix_space ? [(piece) => (piece.startsWith(" ") ? piece : ` ${piece}`)] : [];
    const pattern = new RegExp(translated(PATTERN, classes), "gu");
    if (config.use_regex) steps.push((piece) => cut(piece, pattern));
    return [...steps, (piece) => Array.from(utf8.encode(piece), (byte) => SHOWN[byte]).join("")];
  }
  throw new ModelError(`this page knows no pre-tokenizer ${config.type}; make the page again with this version`);
}

/** A piece cut around each match. */
function cut(piece, pattern) {
  const found = [];
  let end = 0;
  for (const match of piece.matchAll(pattern)) {
    if (match.index > end) found.push(piece.slice(end, match.index));
    found.push(match[0]);
    end = match.index + match[0].length;
  }
  if (end < piece.length) found.push(piece.slice(end));
  return found;
}

/** A pattern with its classes written out, and a group where case does not matter with both cases of its letters. */
function translated(pattern, classes) {
  let out = "";
  let inside = false; // of brackets
  let caseless = 0; // brackets open since the group began
  for (let i = 0; i < pattern.length; ) {
    const rest = pattern.slice(i);
    const [token] = rest.match(/^(?:\(\?i:|\\p\{\w+\}|\\.|[^])/);
    i += token.length;
    if (token in classes) out += inside ? classes[token] : `[${classes[token]}]`;
    else if (token === "\\S" && !inside) out += `[^${classes["\\s"]}]`;
    else if (token === "(?i:") [out, caseless] = [`${out}(?:`, 1];
    else if (token.length > 1 && !/^\\[rnt.+*?()[\]{}|/'-]$/.test(token)) {
      throw new ModelError(`this page does not know ${token} in the pattern of a tokenizer`);
    } else if (caseless && /^[a-z]$/i.test(token)) {
      const both = token.toLowerCase() + token.toUpperCase() + (FOLDED[token.toLowerCase()] ?? "");
      out += inside ? both : `[${both}]`;
    } else out += token;
    if (token === "[") inside = true;
    else if (token === "]") inside = false;
    else if (caseless && !inside) caseless += { "(": 1, ")": -1 }[token] ?? 0;
  }
  return out;
}

/** The merges of a tokenizer.json of the type BPE. */
export class Merges {
  constructor(config) {
    this.ids = new Map(Object.entries(config.vocab));
    this.unknown = config.unk_token == null ? undefined : this.ids.get(config.unk_token);
    this.fuses = Boolean(config.fuse_unk);
    this.whole = Boolean(config.ignore_merges);
    this.merges = new Map();
    config.merges.forEach((pair, rank) => {
      const [a, b] = Array.isArray(pair) ? pair : pair.split(" ");
      const key = this.ids.get(a) * PAIR + this.ids.get(b);
      if (!this.merges.has(key)) this.merges.set(key, [rank, this.ids.get(a + b)]);
    });
  }

  /** The ids of one word: the pair that was learnt first is merged first, of equal ones the leftmost. */
  pieces(word) {
    if (this.whole && this.ids.has(word)) return [this.ids.get(word)];
    const found = this.characters(word);
    const merge = (i) => this.merges.get(found[i] * PAIR + found[i + 1]);
    const rank = (i) => merge(i)?.[0] ?? Infinity;
    const ranks = Array.from({ length: Math.max(0, found.length - 1) }, (_, i) => rank(i));
    for (;;) {
      let best = -1;
      for (let i = 0; i < ranks.length; i += 1) if (ranks[i] < (ranks[best] ?? Infinity)) best = i;
      if (best < 0) return found;
      found.splice(best, 2, merge(best)[1]);
      ranks.splice(best, 1);
      if (best > 0) ranks[best - 1] = rank(best - 1);
      if (best < ranks.length) ranks[best] = rank(best);
    }
  }

  characters(word) {
    const found = [];
    let open = false; // the last one is unknown
    for (const character of word) {
      const id = this.ids.get(character) ?? this.unknown;
      const unknown = !this.ids.has(character);
      if (id !== undefined && !(unknown && open && this.fuses)) found.push(id);
      open = unknown;
    }
    return found;
  }
}

/** The text of tokens, given as the vocabulary spells them; bytes that are no character become U+FFFD. */
export function bytesToText(tokens) {
  const bytes = tokens.flatMap((token) => {
    const found = Array.from(token, (character) => BYTES.get(character));
    return found.includes(undefined) ? [...utf8.encode(token)] : found;
  });
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}
