/**
 * The container of bodies: safetensors, as the parties write and read it. A header of JSON says where arrays lie.
 *
 * Arrays are little-endian, and so is every machine that browsers run on.
 */

import { ProtocolError } from "./errors.js";

const TYPES = { BigUint64Array: "U64", BigInt64Array: "I64", Uint32Array: "U32", Uint8Array: "U8" };
const SIZES = { U64: 8, I64: 8, U32: 4, U8: 1 };
const MAX_HEADER = 2 ** 20; // bytes

/**
 * A body. arrays: [name, typed array, shape] for each; metadata: strings by name.
 */
export function pack(arrays, metadata) {
  const sorted = [...arrays].sort(([a, x], [b, y]) =>
    y.BYTES_PER_ELEMENT - x.BYTES_PER_ELEMENT || (a < b ? -1 : 1)); // each array is aligned
  const header = { __metadata__: metadata };
  let end = 0;
  for (const [name, array, shape] of sorted) {
    header[name] = { dtype: TYPES[array.constructor.name], shape, data_offsets: [end, end + array.byteLength] };
    end += array.byteLength;
  }
  const written = new TextEncoder().encode(JSON.stringify(header));
  const size = Math.ceil(written.length / 8) * 8;
  const body = new Uint8Array(8 + size + end);
  body.fill(32, 8, 8 + size); // spaces
  new DataView(body.buffer).setBigUint64(0, BigInt(size), true);
  body.set(written, 8);
  let at = 8 + size;
  for (const [, array] of sorted) {
    body.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    at += array.byteLength;
  }
  return body;
}

/**
 * What a body (Uint8Array) holds: {arrays: {name: {dtype, shape, bytes}}, metadata}. The arrays fill the body.
 * Throws ProtocolError for anything else.
 */
export function unpack(body) {
  try {
    return read(body);
  } catch (error) {
    throw new ProtocolError(`the body is not a safetensors file (${error.message}); do the page and the parties run ` +
      "the same version?");
  }
}

function read(body) {
  const size = body.length < 8 ? -1 : Number(new DataView(body.buffer, body.byteOffset).getBigUint64(0, true));
  require(size >= 2 && size <= Math.min(MAX_HEADER, body.length - 8), "its header has no valid length");
  const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body.subarray(8, 8 + size)));
  require(plain(header), "its header is not an object");
  const { __metadata__: metadata = {}, ...entries } = header;
  require(plain(metadata) && Object.values(metadata).every((value) => typeof value === "string"),
    "its metadata are not strings");
  const arrays = Object.create(null);
  const spans = [];
  for (const [name, entry] of Object.entries(entries)) {
    require(plain(entry) && Object.hasOwn(SIZES, entry.dtype), `${name} has no known type`);
    const { dtype, shape, data_offsets: place } = entry;
    require(whole(shape) && whole(place) && place.length === 2, `${name} has no valid shape or place`);
    const bytes = shape.reduce((product, n) => product * n, SIZES[dtype]);
    require(place[1] - place[0] === bytes, `${name} does not fill its place`);
    spans.push(place);
    arrays[name] = { dtype, shape, bytes: body.subarray(8 + size + place[0], 8 + size + place[1]) };
  }
  spans.sort(([a, x], [b, y]) => a - b || x - y);
  let end = 0;
  for (const [from, to] of spans) {
    require(from === end, "its arrays overlap, or leave a gap");
    end = to;
  }
  require(end === body.length - 8 - size, "its arrays do not fill it");
  return { arrays, metadata };
}

function require(holds, problem) {
  if (!holds) throw new RangeError(problem);
}

const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const whole = (values) => Array.isArray(values) && values.every((n) => Number.isSafeInteger(n) && n >= 0);
