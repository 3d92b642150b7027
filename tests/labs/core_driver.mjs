// Runs the page's JavaScript for tests: jobs come as lines of JSON on stdin, and what each gives goes to stdout, in
// their order. Bytes are base64. An error is {error: its class, message}.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [core] = process.argv.slice(2);
const part = (name) => import(pathToFileURL(`${core}/${name}`).href);
const { load } = await part("secformer.js");
const { blake2b } = await part("blake2b.js");
const { block } = await part("chacha.js");
const { words, derive } = await part("streams.js");
const { keysOf } = await part("points.js");
const { halvesOf } = await part("requests.js");
const { joined } = await part("answers.js");
const { pack, unpack } = await part("safetensors.js");

const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const base64 = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const models = new Map();
let growing; // the text that grows

async function model(folder) {
  if (!models.has(folder)) models.set(folder, await load((name) => readFile(`${folder}/${name}`)));
  return models.get(folder);
}

const JOBS = {
  blake2b: ({ key, person, message }) => base64(blake2b(bytes(key), bytes(person), bytes(message))),
  block: ({ key, counter, nonce }) => base64(block(key, counter, nonce)),
  words: ({ seed, name, count }) => base64(words(bytes(seed), name, count)),
  derive: ({ seed, name }) => base64(derive(bytes(seed), ...name)),
  keys: ({ points, columns, seed }) => {
    const { salt, seeds, corrections, turns, finals } = keysOf(points, columns, bytes(seed));
    return { salt: base64(salt), seeds: seeds.map(base64), corrections: base64(corrections), turns: base64(turns),
      finals: base64(finals) };
  },
  halves: ({ facts, readings, id, step, seed }) =>
    halvesOf(facts, readings, id, step, seed && bytes(seed)).map(base64),
  joined: ({ bodies, id, names, frac }) => {
    const { values, cost } = joined(bodies.map(bytes), id, names, frac);
    return { cost, values: Object.entries(values).map(([name, { shape, data }]) => [name, shape, base64(data)]) };
  },
  repacked: ({ body }) => {
    const { arrays, metadata } = unpack(bytes(body));
    return base64(pack(Object.entries(arrays).map(([name, { dtype, shape, bytes: raw }]) => {
      const [Kind] = { U64: [BigUint64Array], I64: [BigInt64Array], U32: [Uint32Array], U8: [Uint8Array] }[dtype];
      return [name, new Kind(raw.slice().buffer), shape];
    }), metadata));
  },
  tokenize: async ({ folder, text, ...options }) => (await model(folder)).tokenize(text, options),
  ids: async ({ folder, texts }) => {
    const { tokenizer } = await model(folder);
    return texts.map((text) => tokenizer.encode(text).ids);
  },
  decoded: async ({ folder, ids }) => (await model(folder)).tokenizer.text(ids),
  request: async ({ folder, texts }) => {
    const known = await model(folder);
    const { id, halves, readings } = known.request(texts.map((text) => known.tokenize(text)));
    return { id, halves: halves.map(base64), readings };
  },
  text: async ({ folder, prompt, most }) => {
    growing = (await model(folder)).text(prompt, { most });
    return { ids: growing.ids, tokens: growing.tokens };
  },
  next: () => {
    const { halves, ...facts } = growing.next();
    return { ...facts, halves: halves.map(base64) };
  },
  take: ({ bodies }) => ({ ...growing.take(bodies.map(bytes)), text: growing.text, ended: growing.ended,
    session: growing.session, generated: growing.generated }),
  facts: async ({ folder }) => {
    const { kind, labels, digest, converses } = await model(folder);
    return { kind, labels, digest, converses };
  },
  same: async ({ folder, rank, description }) => (await model(folder)).requireSame(rank, description),
  answer: async ({ folder, request, bodies }) => (await model(folder)).answer(request, bodies.map(bytes)),
};

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { do: name, ...given } = JSON.parse(line);
  let result;
  try {
    result = (await JOBS[name](given)) ?? null;
  } catch (error) {
    result = { error: error.name, message: error.message };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
