/** What a party received: its half as a picture of its bytes, and what it says in the clear. */

import { unpack } from "../core/safetensors.js";
import { element } from "./dom.js";
import { bytes, count, counted, hexadecimal } from "./figures.js";

const WIDTH = 96; // bytes of a row of the picture
const ROWS = 32;
const SHOWN = 32; // bytes as digits
const PUBLIC = ["lengths", "mask"]; // the rest is random to a party without the other's half
const PACKED = "turns"; // holds two bits a byte

/** The bytes of a half (Uint8Array) that depend on the text, its own first: {own, both, lengths}. */
export function parts(half) {
  const { arrays } = unpack(half);
  const lengths = Array.from(new BigInt64Array(arrays.lengths.bytes.slice().buffer), Number);
  const names = Object.keys(arrays).filter((name) => !PUBLIC.includes(name));
  const [own, both] = [names.filter(differs), names.filter((name) => !differs(name))].map((some) =>
    joined(some.map((name) => (name === PACKED ? packed(arrays[name].bytes) : arrays[name].bytes))));
  return { own, both, lengths };
}

function known(lengths) {
  if (lengths.length === 1) return `that there are ${counted(lengths[0], "token")}`;
  return `that there are ${counted(lengths.length, "text")} of ${lengths.map(count).join(", ")} tokens`;
}

const differs = (name) => ["seeds", "segments", "words", "seed"].includes(name);

/** A party's panel. It says what goes on: `sent`, `answered`, `ended`. */
export class PartyPanel {
  #state = element("p", { class: "state" });
  #facts = element("dl");
  #canvas = element("canvas", { width: WIDTH, height: 1, role: "img" });
  #digits = element("code", { class: "bytes" });
  #answer = element("code", { class: "bytes", hidden: "" });
  #rank;
  #sent = [0, 0, 0]; // requests, bytes, and how many of these are noise

  constructor(rank, url) {
    this.#rank = rank;
    this.shown = element("article", { class: `party p${rank}`, "aria-labelledby": `party-${rank}` },
      element("h3", { id: `party-${rank}` }, `Party ${rank}`), element("p", { class: "where" }, new URL(url).host),
      this.#canvas, this.#digits, this.#facts, this.#state, this.#answer);
  }

  /** This half is on its way. `first`: nothing was sent before it for this answer; the picture is of that one. */
  sent(half, first = true) {
    const { own, both, lengths } = parts(half);
    const noise = own.length + both.length;
    const before = first ? [0, 0, 0] : this.#sent;
    const [requests, all, noisy] = this.#sent = [before[0] + 1, before[1] + half.length, before[2] + noise];
    if (first) {
      draw(this.#canvas, own, both, getComputedStyle(this.shown).getPropertyValue("--own"));
      this.#canvas.setAttribute("aria-label", `Random-looking bytes that party ${this.#rank} gets`);
      this.#digits.replaceChildren(`${hexadecimal(own, SHOWN)} …`);
    }
    this.#facts.replaceChildren(...[
      ["its half", first ? bytes(all) : `${bytes(all)} in ${counted(requests, "request")}`], ["noise", bytes(noisy)],
      ["in the clear", `${first ? known(lengths) : "how many tokens a request has"}; the model; a random name`],
    ].flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    this.#answer.hidden = true;
    this.#state.className = "state working";
    this.#state.textContent = "Computing on noise …";
  }

  /** This body came back; `words` are the bytes of its share of the answer. */
  answered(body) {
    const words = joined(Object.values(unpack(body).arrays).map((array) => array.bytes));
    this.#state.className = "state";
    this.#state.textContent = `Its half of the answer: ${bytes(words.length)}`;
    this.#answer.replaceChildren(hexadecimal(words, SHOWN / 2) + (words.length > SHOWN / 2 ? " …" : ""));
    this.#answer.hidden = false;
  }

  /** Nothing more is to come. */
  rested() {
    this.#state.className = "state";
  }

  ended(why) {
    this.#state.className = "state";
    this.#state.textContent = why;
  }
}

/** One pixel a byte: the party's own ones in its colour, those that both parties get in grey. */
function draw(canvas, own, both, colour) {
  const shown = Math.min(own.length + both.length, WIDTH * ROWS);
  canvas.height = Math.max(1, Math.ceil(shown / WIDTH));
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < shown; i += 1) {
    pen.fillStyle = i < own.length ? colour : "#80858c";
    pen.globalAlpha = (i < own.length ? own[i] : both[i - own.length]) / 255;
    pen.fillRect(i % WIDTH, Math.floor(i / WIDTH), 1, 1);
  }
}

function joined(arrays) {
  const out = new Uint8Array(arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    out.set(array, at);
    at += array.length;
  }
  return out;
}

/** Numbers below 4, four a byte. */
function packed(twos) {
  const out = new Uint8Array(Math.floor(twos.length / 4));
  for (let i = 0; i < out.length; i += 1) {
    out[i] = twos[4 * i] | (twos[4 * i + 1] << 2) | (twos[4 * i + 2] << 4) | (twos[4 * i + 3] << 6);
  }
  return out;
}
