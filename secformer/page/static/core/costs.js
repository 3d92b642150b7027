/** What a request cost, as the parties count it: a tree of scopes with the figures of `mpc/meter.py`. */

const SECONDS = ["seconds", "offline_seconds"];
const BYTES = ["bytes", "offline_bytes", "dealer_bytes"];
const ROUNDS = ["rounds", "offline_rounds"];
const MOST = 2 ** 63;
const DEEPEST = 32;

/** The cost in a party's answer. Throws RangeError for anything that is not one. */
export function costOf(facts, deep = DEEPEST) {
  if (!deep) throw new RangeError(`a cost has at most ${DEEPEST} scopes in each other`);
  const cost = { name: String(facts.name) };
  for (const key of [...SECONDS, ...BYTES, ...ROUNDS]) {
    const value = facts[key];
    const whole = SECONDS.includes(key) || Number.isInteger(value);
    if (typeof value !== "number" || !whole || !(Math.abs(value) < MOST)) {
      throw new RangeError(`a cost has numbers, got ${String(value).slice(0, 40)} as its ${key}`);
    }
    cost[key] = value;
  }
  if (!Array.isArray(facts.children)) throw new RangeError("a cost has a list of children");
  cost.children = facts.children.map((child) => costOf(child, deep - 1));
  return cost;
}

/** The cost of two parties that run together: bytes add up; of seconds and rounds, the larger count. */
export function together(a, b) {
  return merged(a, b, Math.max);
}

/** The cost of two runs, one after the other. */
export function inTurn(a, b) {
  return merged(a, b, (x, y) => x + y);
}

function merged(a, b, join) {
  const cost = { name: a.name };
  for (const key of [...SECONDS, ...ROUNDS]) cost[key] = join(a[key], b[key]);
  for (const key of BYTES) cost[key] = a[key] + b[key];
  const children = new Map(a.children.map((child) => [child.name, child]));
  for (const child of b.children) {
    const other = children.get(child.name) ?? empty(child.name);
    children.set(child.name, merged(other, child, join));
  }
  const names = new Set(b.children.map((child) => child.name));
  cost.children = [...children.values()].map((child) =>
    names.has(child.name) ? child : merged(child, empty(child.name), join));
  return cost;
}

function empty(name) {
  const figures = [...SECONDS, ...BYTES, ...ROUNDS].map((key) => [key, 0]);
  return { name, ...Object.fromEntries(figures), children: [] };
}
