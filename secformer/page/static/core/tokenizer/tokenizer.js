/**
 * A tokenizer.json, as far as pages can be made of it (see `secformer/page/tokenizing.py`): texts to ids, exactly as
 * the Python client's tokenizer makes them, and back.
 */

import { ModelError } from "../errors.js";
import { BertNormalizer, BertWords, WordPiece } from "./bert.js";
import { ByteWords, Merges, bytesToText } from "./bytes.js";
import { Forms, codes, textOf } from "./characters.js";

const GAP = /^[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$/;

export class Tokenizer {
  /**
   * json    the tokenizer.json
   * facts   of the model's `tokenizer`: tables of `characters`, the `side` that truncation cuts
   */
  constructor(json, facts) {
    const { normalizer, pre_tokenizer: words, model } = json;
    this.normalizer = normalizer && normalizerOf(normalizer, facts.characters);
    this.words = words.type === "BertPreTokenizer" ? new BertWords(facts.characters) :
      new ByteWords(words, facts.characters);
    this.model = model.type === "WordPiece" ? new WordPiece(model) : new Merges(model);
    this.side = facts.side;
    this.added = new Map(json.added_tokens.map((token) => [token.id, token]));
    const normalized = (token) => ({ ...token, content: this.normalize(token.content) });
    this.early = json.added_tokens.filter((token) => !token.normalized);
    this.late = json.added_tokens.filter((token) => token.normalized).map(normalized);
    this.spellings = new Map(Array.from(this.model.ids, ([token, id]) => [id, token]));
    for (const token of json.added_tokens) this.spellings.set(token.id, token.content);
    [this.single, this.pair] = templates(json.post_processor, (token) => this.id(token));
  }

  normalize(text) {
    return this.normalizer ? this.normalizer.normalize(text) : text;
  }

  /** The id of a token that is spelt so. */
  id(token) {
    return Array.from(this.added.values()).find((each) => each.content === token)?.id ?? this.model.ids.get(token);
  }

  /**
   * {ids, types} of a text, or of a pair: types say which text a token belongs to, as BERT has them.
   *
   * special  with the tokens that are put around every text
   * most     tokens that are kept; undefined: all
   */
  encode(text, second = undefined, { special = true, most = undefined } = {}) {
    const texts = (second === undefined ? [text] : [text, second]).map((each) => this.ids(each));
    const template = (second === undefined ? this.single : this.pair).filter((part) => special || part.id === undefined);
    const around = template.filter((part) => part.id !== undefined).length;
    const kept = most === undefined ? texts : this.truncated(texts, most - around);
    const [ids, types] = [[], []];
    for (const part of template) {
      for (const id of part.id === undefined ? kept[part.text] : [part.id]) {
        ids.push(id);
        types.push(part.type);
      }
    }
    return { ids, types };
  }

  /** The ids of a text as it stands. Added tokens are found first: those that are not normalized in the text itself. */
  ids(text) {
    return this.found(text, this.early).flatMap((piece) => (piece.token ? piece.token.id :
      this.found(this.normalize(piece.text), this.late).flatMap((part) => (part.token ? part.token.id :
        this.words.split(part.text).flatMap((word) => this.model.pieces(word))))));
  }

  /** A text cut around added tokens: {text} or {token} each. The leftmost is found first, and of these the longest. */
  found(text, tokens) {
    const pieces = [];
    let start = 0;
    for (let i = 0; i < text.length; ) {
      const here = tokens.filter((token) => token.content && text.startsWith(token.content, i));
      if (!here.length) {
        i += 1;
        continue;
      }
      const token = here.reduce((a, b) => (b.content.length > a.content.length ? b : a));
      let [from, to] = [i, i + token.content.length];
      while (token.lstrip && from > start && GAP.test(text[from - 1])) from -= 1;
      while (token.rstrip && to < text.length && GAP.test(text[to])) to += 1;
      if (from > start) pieces.push({ text: text.slice(start, from) });
      pieces.push({ token });
      [start, i] = [to, to];
    }
    if (start < text.length) pieces.push({ text: text.slice(start) });
    return pieces;
  }

  /** One text, or two of which the longer gives way first, cut to `most` ids together. */
  truncated(texts, most) {
    const cut = (ids, n) => (this.side === "left" ? ids.slice(Math.max(0, ids.length - n)) : ids.slice(0, n));
    if (texts.length === 1) return [cut(texts[0], Math.max(0, most))];
    const sizes = texts.map((ids) => ids.length);
    if (sizes[0] + sizes[1] <= most) return texts;
    const small = Math.min(...sizes);
    let [less, more] = [small, small > most ? small : Math.max(small, most - small)];
    if (less + more > most) [less, more] = [Math.floor(most / 2), Math.floor(most / 2) + (most % 2)];
    const [a, b] = sizes[0] > sizes[1] ? [more, less] : [less, more];
    return [cut(texts[0], a), cut(texts[1], b)];
  }

  /** How the vocabulary spells a token. */
  spelling(id) {
    return this.spellings.get(id) ?? "";
  }

  /** The text of generated tokens without special ones. */
  text(ids) {
    const kept = ids.filter((id) => !this.added.get(id)?.special && this.spellings.has(id));
    return bytesToText(kept.map((id) => this.spelling(id)));
  }
}

function normalizerOf(config, tables) {
  if (config.type === "BertNormalizer") return new BertNormalizer(config, tables);
  if (config.type !== "NFC") {
    throw new ModelError(`this page knows no normalizer ${config.type}; make the page again with this version`);
  }
  const forms = new Forms(tables);
  return { normalize: (text) => textOf(forms.composed(codes(text))) };
}

const TEXTS = { A: 0, B: 1 };

/**
 * What stands in one text, and in a pair: {text: 0 or 1, type} or {id, type} each. Later processors go around earlier
 * ones, and those of byte-level tokenizers change no ids.
 */
function templates(processor, id) {
  const plain = [[{ text: 0, type: 0 }], [{ text: 0, type: 0 }, { text: 1, type: 1 }]];
  const all = processor?.type === "Sequence" ? processor.processors : processor ? [processor] : [];
  const own = all.filter((each) => each.type !== "ByteLevel");
  if (own.length > 1) throw new ModelError("this page knows no tokenizer with two processors that add tokens");
  return own.length ? templateOf(own[0], id) : plain;
}

function templateOf(processor, id) {
  if (processor.type === "TemplateProcessing") {
    const part = (piece) => (piece.Sequence ? { text: TEXTS[piece.Sequence.id], type: piece.Sequence.type_id } :
      processor.special_tokens[piece.SpecialToken.id].ids.map((each) => ({ id: each, type: piece.SpecialToken.type_id })));
    return [processor.single.flatMap(part), processor.pair.flatMap(part)];
  }
  const [first, last] = [processor.cls, processor.sep].map(([token, known]) => known ?? id(token));
  const [before, behind] = [{ id: first, type: 0 }, { id: last, type: 0 }];
  const one = [before, { text: 0, type: 0 }, behind];
  if (processor.type === "BertProcessing") return [one, [...one, { text: 1, type: 1 }, { id: last, type: 1 }]];
  if (processor.type === "RobertaProcessing") return [one, [...one, behind, { text: 1, type: 0 }, behind]];
  throw new ModelError(`this page knows no post-processor ${processor.type}; make the page again with this version`);
}
