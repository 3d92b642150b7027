/** BLAKE2b (RFC 7693) of messages of one block, keyed and personalised: it derives the keys of streams. */

const MASK = (1n << 64n) - 1n;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];
const BLOCK = 128; // bytes
const ROUNDS = 12;
const PLACE = 48; // of the personalisation among the parameters

const turned = (x, bits) => ((x >> bits) | (x << (64n - bits))) & MASK;

/**
 * 32 bytes for a key of 1 to 64 bytes, a personalisation of up to 16 and a message of 1 to 128, all Uint8Array.
 * Throws RangeError for other lengths.
 */
export function blake2b(key, person, message) {
  const fits = key.length >= 1 && key.length <= 64 && person.length <= 16;
  if (!fits || message.length < 1 || message.length > BLOCK) {
    throw new RangeError(`a key has 1 to 64 bytes, a personalisation up to 16, a message 1 to ${BLOCK}; got ` +
      `${key.length}, ${person.length} and ${message.length}`);
  }
  const parameters = new Uint8Array(64);
  parameters.set([32, key.length, 1, 1]);
  parameters.set(person, PLACE);
  const given = words(parameters);
  const state = IV.map((word, i) => word ^ given[i]);
  compress(state, padded(key), BigInt(BLOCK), false);
  compress(state, padded(message), BigInt(BLOCK + message.length), true);
  const out = new DataView(new ArrayBuffer(32));
  for (let i = 0; i < 4; i += 1) out.setBigUint64(8 * i, state[i], true);
  return new Uint8Array(out.buffer);
}

function padded(bytes) {
  const block = new Uint8Array(BLOCK);
  block.set(bytes);
  return block;
}

function words(bytes) {
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 8 }, (_, i) => view.getBigUint64(8 * i, true));
}

function compress(state, block, count, last) {
  const m = words(block);
  const v = [...state, ...IV];
  v[12] ^= count;
  if (last) v[14] ^= MASK;
  for (let round = 0; round < ROUNDS; round += 1) {
    const order = SIGMA[round % SIGMA.length];
    QUARTERS.forEach(([a, b, c, d], i) => {
      v[a] = (v[a] + v[b] + m[order[2 * i]]) & MASK;
      v[d] = turned(v[d] ^ v[a], 32n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = turned(v[b] ^ v[c], 24n);
      v[a] = (v[a] + v[b] + m[order[2 * i + 1]]) & MASK;
      v[d] = turned(v[d] ^ v[a], 16n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = turned(v[b] ^ v[c], 63n);
    });
  }
  for (let i = 0; i < 8; i += 1) state[i] ^= v[i] ^ v[i + 8];
}
