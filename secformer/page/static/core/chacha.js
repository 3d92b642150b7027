/** ChaCha20 blocks: with keys of 256 bits (RFC 8439) for streams, and of 128 bits (Bernstein, 2008) for seeds. */

const LONG = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]; // "expand 32-byte k"
const SHORT = [0x61707865, 0x3120646e, 0x79622d36, 0x6b206574]; // "expand 16-byte k"
const DOUBLE_ROUNDS = 10;
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

/**
 * One block, as 16 words (Uint32Array).
 *
 * key      8 words, or 4 of a seed, which then stand twice
 * counter  below 2^32
 * nonce    3 words
 */
export function block(key, counter, nonce) {
  const long = key.length === 8;
  const start = new Uint32Array(16);
  start.set(long ? LONG : SHORT);
  start.set(key, 4);
  if (!long) start.set(key, 8);
  start[12] = counter;
  start.set(nonce, 13);
  const x = start.slice();
  for (let round = 0; round < DOUBLE_ROUNDS; round += 1) {
    for (const [a, b, c, d] of QUARTERS) quarter(x, a, b, c, d);
  }
  for (let i = 0; i < 16; i += 1) x[i] += start[i];
  return x;
}

function quarter(x, a, b, c, d) {
  x[a] += x[b];
  x[d] = turned(x[d] ^ x[a], 16);
  x[c] += x[d];
  x[b] = turned(x[b] ^ x[c], 12);
  x[a] += x[b];
  x[d] = turned(x[d] ^ x[a], 8);
  x[c] += x[d];
  x[b] = turned(x[b] ^ x[c], 7);
}

const turned = (x, bits) => (x << bits) | (x >>> (32 - bits));
