/**
 * Keys of distributed point functions, as `mpc/points.py` makes them: a row of V words with a single 1, as two short
 * keys that hide where the 1 is. The names of the steps are those of that file, which says why the keys hide it.
 */

import { block } from "./chacha.js";
import { words } from "./streams.js";

export const LEAF = 16; // words of a leaf
const BLOCK = 8; // words of 64 bits in a block
const LEAF_COUNTER = 2 ** 31; // counters below are the tree's levels
export const SEED_WORDS = 4;
export const SALT_WORDS = 2;
const RIGHT = 2;

/** The number of levels above the leaves of a row of so many words. */
export function depth(columns) {
  return Math.ceil(columns / LEAF) <= 1 ? 0 : 32 - Math.clz32(Math.ceil(columns / LEAF) - 1);
}

/**
 * What both parties' keys have in common, and the seeds in which they differ.
 *
 * points   N places of the 1, 0..columns - 1
 * seed     32 fresh bytes; they serve once
 * Returns  salt (2), corrections (N, D, 4): Uint32Array; turns (N, D): Uint8Array; finals (N, LEAF): BigUint64Array;
 *          seeds: for each party (N, 4) Uint32Array. All flat. Throws RangeError for a point outside of the row.
 */
export function keysOf(points, columns, seed) {
  const n = points.length;
  if (!n || !points.every((point) => Number.isInteger(point) && point >= 0 && point < columns)) {
    throw new RangeError(`one or more points lie in a row of ${columns} words, 0 to ${columns - 1}`);
  }
  const levels = depth(columns);
  const drawn = words(seed, ["points"], SALT_WORDS + 2 * SEED_WORDS * n); // 1
  const salt = drawn.slice(0, SALT_WORDS);
  const roots = drawn.subarray(SALT_WORDS);
  const seeds = [0, 1].map((rank) => roots.slice(rank * SEED_WORDS * n, (rank + 1) * SEED_WORDS * n));
  const keys = {
    salt, seeds, levels,
    corrections: new Uint32Array(n * levels * SEED_WORDS),
    turns: new Uint8Array(n * levels),
    finals: new BigUint64Array(n * LEAF),
  };
  points.forEach((point, token) => grow(keys, point, token));
  return keys;
}

/** One token's key, from the root down to the point's leaf. */
function grow(keys, point, token) {
  const nonce = [keys.salt[0], keys.salt[1], token];
  let bits = [0, 1];
  let seeds = keys.seeds.map((each) => each.slice(SEED_WORDS * token, SEED_WORDS * (token + 1)));
  const leaf = Math.floor(point / LEAF);
  for (let level = 0; level < keys.levels; level += 1) { // 2
    const found = seeds.map((each) => block(each, level, nonce));
    const right = (leaf >>> level) & 1;
    const [keep, lose] = right ? [4, 0] : [0, 4];
    const correction = Uint32Array.from({ length: SEED_WORDS }, (_, i) => found[0][lose + i] ^ found[1][lose + i]);
    const turns = [0, 1].map((side) => ((found[0][8 + side] ^ found[1][8 + side]) & 1) ^ (side === right ? 1 : 0));
    const at = token * keys.levels + level;
    keys.corrections.set(correction, SEED_WORDS * at);
    keys.turns[at] = turns[0] + RIGHT * turns[1];
    seeds = found.map((each, rank) =>
      Uint32Array.from(correction, (word, i) => each[keep + i] ^ (bits[rank] ? word : 0)));
    bits = found.map((each, rank) => (each[8 + right] & 1) ^ (bits[rank] & turns[right]));
  }
  const [mine, theirs] = seeds.map((each) => leafWords(each, nonce)); // 3
  for (let i = 0; i < LEAF; i += 1) {
    const final = (i === point % LEAF ? 1n : 0n) - mine[i] + theirs[i];
    keys.finals[token * LEAF + i] = BigInt.asUintN(64, bits[0] ? final : -final);
  }
}

/** The LEAF words of 64 bits of a leaf. */
function leafWords(seed, nonce) {
  const out = new Uint32Array(2 * LEAF);
  for (let i = 0; i < LEAF / BLOCK; i += 1) out.set(block(seed, LEAF_COUNTER + i, nonce), 16 * i);
  return new BigUint64Array(out.buffer);
}
