/** BERT's way of tokenising: a normalizer, words at spaces and punctuation, and pieces of words (WordPiece). */

import { Forms, Ranges, codes, textOf } from "./characters.js";

const SPACE = 0x20;

/** The normalizer of a tokenizer.json of the type BertNormalizer. */
export class BertNormalizer {
  constructor(config, tables) {
    this.clean = config.clean_text;
    this.apart = config.handle_chinese_chars;
    this.lower = config.lowercase;
    this.strip = config.strip_accents ?? config.lowercase;
    this.removed = new Ranges(tables.removed);
    this.spaces = new Ranges(tables.spaces);
    this.chinese = new Ranges(tables.chinese);
    this.accents = new Ranges(tables.accents);
    this.forms = new Forms(tables);
    this.lowered = new Map();
    for (let i = 0; i < tables.lower.length; i += 2) {
      this.lowered.set(tables.lower[i].codePointAt(0), codes(tables.lower[i + 1]));
    }
  }

  normalize(text) {
    let points = codes(text);
    if (this.clean) {
      points = points.filter((code) => !this.removed.has(code)).map((code) => (this.spaces.has(code) ? SPACE : code));
    }
    if (this.apart) points = points.flatMap((code) => (this.chinese.has(code) ? [SPACE, code, SPACE] : code));
    if (this.strip) points = this.forms.decomposed(points).filter((code) => !this.accents.has(code));
    if (this.lower) points = points.flatMap((code) => this.lowered.get(code) ?? code);
    return textOf(points);
  }
}

/** Words of a text: cut at spaces, which are dropped, and around each punctuation mark. */
export class BertWords {
  constructor(tables) {
    this.gaps = new Ranges(tables.gaps);
    this.marks = new Ranges(tables.marks);
  }

  split(text) {
    const words = [];
    let word = "";
    const end = () => {
      if (word) words.push(word);
      word = "";
    };
    for (const character of text) {
      const code = character.codePointAt(0);
      const mark = this.marks.has(code);
      if (mark || this.gaps.has(code)) end();
      if (mark) words.push(character);
      else if (!this.gaps.has(code)) word += character;
    }
    end();
    return words;
  }
}

/** Pieces of words: the longest one that the vocabulary has, again and again. */
export class WordPiece {
  constructor(config) {
    this.ids = new Map(Object.entries(config.vocab));
    this.unknown = this.ids.get(config.unk_token);
    this.prefix = config.continuing_subword_prefix;
    this.longest = config.max_input_chars_per_word;
  }

  /** The ids of one word. */
  pieces(word) {
    const characters = Array.from(word);
    if (characters.length > this.longest) return [this.unknown];
    const found = [];
    for (let start = 0; start < characters.length; ) {
      let end = characters.length;
      let id;
      while (end > start) {
        id = this.ids.get((start ? this.prefix : "") + characters.slice(start, end).join(""));
        if (id !== undefined) break;
        end -= 1;
      }
      if (id === undefined) return [this.unknown];
      found.push(id);
      start = end;
    }
    return found;
  }
}
