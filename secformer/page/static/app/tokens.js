/** The tokens that this page shows the parties: fetched from its own origin, held in memory, fetched anew before they
 * expire. */

const MARGIN = 60; // seconds before a token's end after which no request begins with it

/** Why no tokens could be had. */
export class TokenError extends Error {
  name = "TokenError";
}

export class Tokens {
  #url;
  #held = null;
  #coming = null;

  constructor(url) {
    this.#url = url;
  }

  /** A token for each party, in the order of ranks. */
  async pair() {
    if (this.#held === null || Date.now() / 1000 > this.#held.expires - MARGIN) await this.renew();
    return [this.#held.party0, this.#held.party1];
  }

  /** Fetches new ones. Those who ask at the same time share one answer. */
  async renew() {
    this.#coming ??= this.#fetched();
    try {
      this.#held = await this.#coming;
    } finally {
      this.#coming = null;
    }
  }

  async #fetched() {
    const where = new URL(this.#url, location.href).href;
    let response;
    try {
      response = await fetch(where, { cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" });
    } catch {
      throw new TokenError(`This page's own server does not answer at ${where}, so there are no tokens to show the ` +
        "parties. Is it still running?");
    }
    if (!response.ok) {
      throw new TokenError(`${where} gave no tokens for the parties (${response.status}). ` +
        (response.status === 403 ? "Open this page at the address that was printed when it was started." :
          "Ask whoever runs this page."));
    }
    const found = await response.json().catch(() => null);
    const fits = found !== null && [found.party0, found.party1].every((token) => typeof token === "string" && token) &&
      Number.isFinite(found.expires);
    if (!fits) throw new TokenError(`${where} holds no tokens: it must have party0, party1 and expires.`);
    return found;
  }
}
