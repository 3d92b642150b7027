/**
 * Randomness: fresh seeds from the browser, and named streams of words under a seed, as `mpc/prg.py` cuts them.
 *
 * This is the only file that asks the browser for randomness.
 */

import { blake2b } from "./blake2b.js";
import { block } from "./chacha.js";

export const FORMAT = "secformer keys 2";
const SEED_BYTES = 32;
const NONCE = [0, 0, 0];
const text = new TextEncoder();

/** A new seed of 256 bits. */
export function freshSeed() {
  return globalThis.crypto.getRandomValues(new Uint8Array(SEED_BYTES));
}

/** The key of a name, which is one or more strings, under a seed. */
export function derive(seed, ...name) {
  if (seed.length !== SEED_BYTES) throw new RangeError(`a seed has ${SEED_BYTES} bytes, got ${seed.length}`);
  const parts = name.flatMap((part) => {
    const spelt = text.encode(`str:${part}`);
    return [...new Uint8Array(Uint32Array.of(spelt.length).buffer), ...spelt];
  });
  return blake2b(seed, text.encode(FORMAT), Uint8Array.from(parts));
}

/** The first `count` words (Uint32Array) of the stream of a name. A name is read once under a seed. */
export function words(seed, name, count) {
  const key = new Uint32Array(derive(seed, ...name).buffer);
  const out = new Uint32Array(16 * Math.ceil(count / 16));
  for (let i = 0; 16 * i < count; i += 1) out.set(block(key, i, NONCE), 16 * i);
  return out.subarray(0, count);
}

/** Bytes as hexadecimal digits. */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
