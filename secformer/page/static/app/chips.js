/** Texts as their tokens. */

import { element } from "./dom.js";

const SPECIAL = /^(\[[A-Za-z]+\]|<\/?s>|<\|.*\|>|<(pad|unk|mask|bos|eos)>)$/;

/** A list of tokens for each reading, {ids, tokens}. `known`: how many first tokens are the same in all texts. */
export function chips(readings, known = 0) {
  return readings.map((reading, i) => {
    const label = readings.length > 1 ? `Tokens of text ${i + 1}` : "Tokens";
    const kind = (token, place) => (place < known || SPECIAL.test(token) ? "special" : null);
    const items = reading.tokens.map((token, place) => element("li", { class: kind(token, place) },
      shown(token), element("small", {}, String(reading.ids[place]))));
    return element("ol", { class: "chips", "aria-label": label }, items);
  });
}

/** Byte-level tokenizers write a space as Ġ and a line's end as Ċ; sentencepiece writes a space as ▁. */
function shown(token) {
  return token.replace(/[Ġ▁]/g, "␣").replace(/Ċ/g, "⏎") || "∅";
}
