/** Tokens of texts as two halves of a request, as `roles/halves.py` and `pack_half` of `roles/messages.py` make them. */

import { LEAF, SALT_WORDS, SEED_WORDS, keysOf } from "./points.js";
import { pack } from "./safetensors.js";
import { derive, freshSeed, hex, words } from "./streams.js";

const FORM = "secformer request 2";
const ID_DIGITS = 32;

/** A name that nobody can guess, for a request or a session: 128 random bits as hexadecimal digits. */
export function freshId() {
  return hex(freshSeed()).slice(0, ID_DIGITS);
}

/**
 * Both halves (Uint8Array) of a request.
 *
 * facts     of the model: `digest`, `words` (V) and `segments` (S)
 * readings  for each text `ids` and `segments`, whole numbers
 * id        of the request
 * step      of a text that grows: {session, keep, last}; undefined: none
 * seed      32 fresh bytes, which serve once
 */
export function halvesOf(facts, readings, id, step = undefined, seed = freshSeed()) {
  const ids = readings.flatMap((reading) => reading.ids);
  const kinds = readings.flatMap((reading) => reading.segments);
  const n = ids.length;
  const keys = keysOf(ids, facts.words, derive(seed, "points"));
  const longest = Math.max(...readings.map((reading) => reading.ids.length));
  const mask = new Uint8Array(readings.length * longest);
  readings.forEach((reading, i) => mask.fill(1, i * longest, i * longest + reading.ids.length));
  const lengths = BigInt64Array.from(readings, (reading) => BigInt(reading.ids.length));
  const segments = segmentHalves(kinds, facts.segments, seed);
  const same = [
    ["lengths", lengths, [readings.length]],
    ["mask", mask, [readings.length, longest]],
    ["salt", keys.salt, [SALT_WORDS]],
    ["corrections", keys.corrections, [n, keys.levels, SEED_WORDS]],
    ["turns", keys.turns, [n, keys.levels]],
    ["finals", keys.finals, [n, LEAF]],
  ];
  return [0, 1].map((rank) => {
    const own = [["seeds", keys.seeds[rank], [n, SEED_WORDS]]];
    if (facts.segments) own.push(["segments", segments[rank], [n, facts.segments]]);
    // the salt makes the digest of a body hide it from whoever has the other half
    const metadata = { format: FORM, request: id, model: facts.digest, salt: hex(freshSeed()) };
    if (step) Object.assign(metadata, { session: step.session, keep: `${step.keep}`, last: `${step.last}` });
    return pack([...same, ...own], metadata);
  });
}

/** Both parties' shares of the one-hot rows of segments, (N, S) flat: party 1's is drawn, party 0's is the rest. */
function segmentHalves(kinds, count, seed) {
  const theirs = new BigUint64Array(words(seed, ["share", "segments"], 2 * kinds.length * count).slice().buffer);
  const mine = theirs.map((mask, i) =>
    BigInt.asUintN(64, (kinds[Math.floor(i / count)] === i % count ? 1n : 0n) - mask));
  return [mine, theirs];
}
