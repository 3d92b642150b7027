/** Numbers as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function count(number) {
  return whole.format(number);
}

/** `count` things, "1 token" or "6 tokens". */
export function counted(number, thing) {
  return `${whole.format(number)} ${thing}${number === 1 ? "" : "s"}`;
}

export function bytes(number) {
  if (number < 1e4) return `${whole.format(number)} bytes`;
  return number < 1e6 ? `${three.format(number / 1e3)} kB` : `${three.format(number / 1e6)} MB`;
}

export function seconds(number) {
  return number < 1 ? `${whole.format(number * 1e3)} ms` : `${three.format(number)} s`;
}

export function percent(part) {
  const value = 100 * part;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${value.toFixed(1)} %`;
}

/** The first bytes of an array, in hexadecimal, in groups of four. */
export function hexadecimal(array, most = array.length) {
  const digits = Array.from(array.subarray(0, most), (byte) => byte.toString(16).padStart(2, "0"));
  return digits.join("").match(/.{1,8}/g)?.join(" ") ?? "";
}
