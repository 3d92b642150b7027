/**
 * What the Python client's tokenizer takes each character for. Browsers know other versions of Unicode, so nothing is
 * asked of them: the tables in a model's folder come from that tokenizer (see `secformer/page/characters.py`).
 */

const HANGUL = 0xac00; // the first syllable; all of them are made of two or three parts, by rule
const SYLLABLES = 11172;
const [LEADING, VOWEL, TRAILING] = [0x1100, 0x1161, 0x11a7];
const [LEADINGS, VOWELS, TRAILINGS] = [19, 21, 28];

/** A set of code points, from ranges [first, last, first, last, ...] in ascending order. */
export class Ranges {
  constructor(bounds) {
    this.bounds = bounds;
  }

  has(code) {
    let [low, high] = [0, this.bounds.length / 2];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.bounds[2 * middle + 1] < code) low = middle + 1;
      else high = middle;
    }
    return 2 * low < this.bounds.length && this.bounds[2 * low] <= code;
  }

  /** The set as what stands between the brackets of a regular expression with the flag u. */
  get source() {
    const spelt = (code) => `\\u{${code.toString(16)}}`;
    let out = "";
    for (let i = 0; i < this.bounds.length; i += 2) out += `${spelt(this.bounds[i])}-${spelt(this.bounds[i + 1])}`;
    return out;
  }
}

/** Code points of a text. */
export const codes = (text) => Array.from(text, (character) => character.codePointAt(0));

/** The text of code points. */
export function textOf(points) {
  let out = "";
  for (let i = 0; i < points.length; i += 1024) out += String.fromCodePoint(...points.slice(i, i + 1024));
  return out;
}

/** Canonical forms of code points: NFD and NFC. */
export class Forms {
  /**
   * decompositions  [character, its decomposition, ...] in one list, without Hangul syllables
   * classes         {class: ranges} of the characters that may change places: lower classes come first
   * compositions    [character, the two that make it, ...]
   */
  constructor({ decompositions, classes, compositions }) {
    this.parts = new Map();
    for (let i = 0; i < decompositions.length; i += 2) {
      this.parts.set(decompositions[i].codePointAt(0), codes(decompositions[i + 1]));
    }
    this.classes = new Map();
    for (const [number, bounds] of Object.entries(classes)) {
      for (let i = 0; i < bounds.length; i += 2) {
        for (let code = bounds[i]; code <= bounds[i + 1]; code += 1) this.classes.set(code, Number(number));
      }
    }
    this.wholes = new Map();
    for (let i = 0; i < compositions.length; i += 2) this.wholes.set(compositions[i + 1], compositions[i].codePointAt(0));
  }

  order(code) {
    return this.classes.get(code) ?? 0;
  }

  decomposed(points) {
    const out = points.flatMap((code) => this.parts.get(code) ?? syllable(code));
    for (let start = 0; start < out.length; start += 1) {
      let end = start;
      while (end < out.length && this.order(out[end])) end += 1;
      if (end - start > 1) {
        out.splice(start, end - start, ...out.slice(start, end).sort((a, b) => this.order(a) - this.order(b)));
      }
      start = end;
    }
    return out;
  }

  /** A mark joins the last character that does not move, unless one between them has its class or a higher one. */
  composed(points) {
    const out = [];
    let first = -1; // where that character stands in `out`
    for (const code of this.decomposed(points)) {
      const own = this.order(code);
      const before = first < 0 || out.length - 1 === first ? -1 : this.order(out.at(-1));
      const whole = first >= 0 && (before < 0 || (before && before < own)) ? this.pair(out[first], code) : undefined;
      if (whole !== undefined) out[first] = whole;
      else {
        out.push(code);
        if (!own) first = out.length - 1;
      }
    }
    return out;
  }

  pair(a, b) {
    const [vowel, trailing, number] = [b - VOWEL, b - TRAILING, a - HANGUL];
    if (a >= LEADING && a < LEADING + LEADINGS && vowel >= 0 && vowel < VOWELS) {
      return HANGUL + ((a - LEADING) * VOWELS + vowel) * TRAILINGS;
    }
    if (number >= 0 && number < SYLLABLES && number % TRAILINGS === 0 && trailing > 0 && trailing < TRAILINGS) {
      return a + trailing;
    }
    return this.wholes.get(String.fromCodePoint(a, b));
  }
}

function syllable(code) {
  const number = code - HANGUL;
  if (number < 0 || number >= SYLLABLES) return code;
  const [rest, last] = [Math.floor(number / TRAILINGS), number % TRAILINGS];
  const open = [LEADING + Math.floor(rest / VOWELS), VOWEL + (rest % VOWELS)];
  return last ? [...open, TRAILING + last] : open;
}
