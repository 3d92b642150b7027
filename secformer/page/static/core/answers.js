/** The parties' two halves of an answer as one, as `unpack_answer` and `joined` of the Python client do it. */

import { costOf, together } from "./costs.js";
import { ProtocolError } from "./errors.js";
import { unpack } from "./safetensors.js";

const FORM = "secformer answer 1";
const HIGH = 2 ** 32;
const SAME = "do all roles run the same version?";

/**
 * The values of both answers' sum, and what they cost: {values: {name: {shape, data: Float64Array}}, cost}.
 *
 * bodies  party 0's and party 1's, Uint8Array or ArrayBuffer
 * id      of the request that they answer
 * names   of the results that the model has
 * frac    fractional bits of the words
 * Throws ProtocolError for answers that cannot be read, or do not belong together.
 */
export function joined(bodies, id, names, frac) {
  const [first, second] = bodies.map((body, rank) => answerOf(body, rank, id, names, frac));
  const values = Object.create(null);
  for (const name of names) {
    const [a, b] = [first.arrays[name], second.arrays[name]];
    if (`${a.shape}` !== `${b.shape}`) {
      throw new ProtocolError(`the halves of ${name} have shapes (${a.shape}) and (${b.shape}); ${SAME}`);
    }
    values[name] = { shape: a.shape, data: sum(a.bytes, b.bytes, frac) };
  }
  return { values, cost: together(first.cost, second.cost) };
}

/** One party's half. */
function answerOf(body, rank, id, names, frac) {
  const bytes = body instanceof Uint8Array ? body : new Uint8Array(body);
  const { arrays, metadata } = unpack(bytes);
  const fail = (problem) => new ProtocolError(`the answer of party ${rank} cannot be read (${problem}); ${SAME}`);
  if (metadata.format !== FORM) throw fail(`its form is not ${FORM}`);
  if (metadata.request !== id) throw fail(`it answers request ${metadata.request}`);
  if (metadata.frac !== `${frac}`) throw fail(`its words have ${metadata.frac} fractional bits instead of ${frac}`);
  const odd = Object.entries(arrays).find(([, array]) => array.dtype !== "U64");
  if (odd) throw fail(`${odd[0]} holds ${odd[1].dtype}, but shares are U64`);
  if (Object.keys(arrays).sort().join() !== [...names].sort().join()) {
    throw new ProtocolError(`party ${rank} answered with ${Object.keys(arrays).sort().join(", ")}, but the model has ` +
      `${[...names].sort().join(", ")}; ${SAME}`);
  }
  try {
    return { arrays, cost: costOf(JSON.parse(metadata.cost)) };
  } catch (error) {
    throw fail(error.message);
  }
}

/**
 * Words modulo 2^64, added, as numbers: two's complement with `frac` fractional bits. Each word is added as two halves,
 * and the one rounding is that of a whole number to a float64, as in Python.
 */
function sum(first, second, frac) {
  const [a, b] = [first, second].map((bytes) => new Uint32Array(bytes.slice().buffer));
  const out = new Float64Array(a.length / 2);
  const scale = 2 ** -frac;
  for (let i = 0; i < out.length; i += 1) {
    const low = a[2 * i] + b[2 * i];
    const carry = low >= HIGH ? 1 : 0;
    const high = (a[2 * i + 1] + b[2 * i + 1] + carry) | 0;
    out[i] = (high * HIGH + (low - carry * HIGH)) * scale;
  }
  return out;
}
