/** Results of single texts, named and turned into probabilities as the Python client does it. */

export const GUARD = "guard";
const SENTENCE = "sentence_embedding";
const BEST = 5; // words that are told for a mask

/**
 * What a request's values say of each text.
 *
 * facts      of the model
 * tokenizer  spells words for masks
 * readings   the texts' tokens
 * values     {name: {shape, data}}: rows for all tokens, packed, or for all texts
 */
export function texts(facts, tokenizer, readings, values) {
  let start = 0;
  return readings.map((reading, i) => {
    const [from, to] = [start, start + reading.ids.length];
    start = to;
    const own = (name) => (facts.by_token[name] ? rows(values[name], from, to) : rows(values[name], i, i + 1));
    const trusted = facts.guarded ? rows(values[GUARD], i, i + 1)[0].every((word) => word === 0) : null;
    return { ...said(facts, tokenizer, reading, own), trusted };
  });
}

function said(facts, tokenizer, reading, own) {
  if (facts.kind === "embedding") return { vector: embedding(facts, own) };
  const logits = own("logits");
  if (facts.kind === "labels") return labelled(facts, logits[0]);
  if (facts.mask !== null) return { masks: masks(facts, tokenizer, reading, logits) };
  const each = logits.map((row) => labelled(facts, row));
  return { labels: each.map((one) => one.label), probabilities: each.map((one) => one.probabilities) };
}

/** {label, probabilities}, in the order of the model's labels; or {score} of a model with one output. */
function labelled(facts, logits) {
  const { labels, problem } = facts;
  const probabilities = problem === "regression" || !labels.length ? null :
    problem === "multi" ? logits.map(sigmoid) : softmax(logits);
  const found = { logits: [...logits] };
  if (labels.length === 1) found.score = facts.score === "sigmoid" ? sigmoid(logits[0]) : logits[0];
  if (!probabilities) return found;
  const label = problem === "multi" ? labels.filter((_, i) => logits[i] > 0) : labels[largest(logits)];
  return { ...found, label, probabilities: [...probabilities] };
}

/** The sentence embedding: the model's own, or the mean of its hidden states, of unit length. */
function embedding(facts, own) {
  if (facts.names.includes(SENTENCE)) return facts.unit ? unit(own(SENTENCE)[0]) : [...own(SENTENCE)[0]];
  const hidden = own("last_hidden_state");
  return unit(hidden[0].map((_, i) => hidden.reduce((total, row) => total + row[i], 0) / hidden.length));
}

function unit(vector) {
  const norm = Math.sqrt(vector.reduce((total, x) => total + x * x, 0));
  return Array.from(vector, (x) => (norm ? x / norm : x));
}

/** For each mask of a text, where it stands among the tokens, and the likeliest words, best first. */
function masks(facts, tokenizer, reading, logits) {
  return reading.ids.flatMap((id, token) => {
    if (id !== facts.mask) return [];
    const chances = softmax(logits[token]);
    const order = Array.from(chances.keys()).sort((a, b) => chances[b] - chances[a] || a - b).slice(0, BEST);
    return { token, words: order.map((i) => ({ id: i, word: tokenizer.spelling(i), probability: chances[i] })) };
  });
}

/** Rows from..to - 1 of values, whatever stands in a row. */
function rows({ shape, data }, from, to) {
  const size = shape.slice(1).reduce((product, n) => product * n, 1);
  return Array.from({ length: to - from }, (_, i) => data.subarray((from + i) * size, (from + i + 1) * size));
}

/** Probabilities of logits. */
export function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((x) => Math.exp(x - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / total);
}

function sigmoid(x) {
  const power = Math.exp(-Math.abs(x));
  return (x < 0 ? power : 1) / (1 + power);
}

/** The place of the largest value, the first one of equals. */
export function largest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i += 1) if (values[i] > values[best]) best = i;
  return best;
}
