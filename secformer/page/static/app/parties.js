/** The two parties, asked at the same time over HTTPS. Each gets one half, and never the other's. */

import { counted } from "./figures.js";

const PATIENCE = 30; // seconds that a request waits in total while a party says that it is busy
const BODY = "application/octet-stream";
const MOMENT = 500; // milliseconds
const TOKEN = "token"; // the kind of a refusal for a token that expired, was used up, or does not hold

/** What a party did not do, in words for whoever reads the page.
 *
 * after    seconds after which a busy party wants to be asked again
 * expired  whether it refused the token
 */
export class PartyError extends Error {
  name = "PartyError";

  constructor(message, { after = null, expired = false } = {}) {
    super(message);
    this.after = after;
    this.expired = expired;
  }

  /** Whether asking again may help. */
  get passing() {
    return this.after !== null || this.expired;
  }
}

export class Parties {
  #tokens;

  /** urls: of party 0 and party 1; tokens: `Tokens`. */
  constructor(urls, tokens) {
    this.urls = urls.map((url) => url.replace(/\/+$/, ""));
    this.#tokens = tokens;
  }

  /**
   * Asks until both parties have answered: {request, bodies}. A request that was refused for a token, or because a
   * party is busy, is made anew, with new randomness: no half is sent twice.
   *
   * make     gives a request, {id, halves}
   * told     {sent(request), answered(rank, bytes), again(why)}
   * signal   ends it
   * patient  false: a request is made once, as the steps of a text must be
   * Throws PartyError, TokenError, and AbortError after `signal`.
   */
  async ask(make, told, signal, { patient = true } = {}) {
    let renewed = false;
    for (let waited = 0; ;) {
      const tokens = await this.#tokens.pair();
      const request = make();
      told.sent(request);
      try {
        return { request, bodies: await this.#both(request, tokens, told, signal) };
      } catch (error) {
        if (!patient || !(error instanceof PartyError)) throw error;
        if (error.expired && !renewed) {
          renewed = true;
          told.again("A token has expired. Asking again with new ones …");
          await this.#tokens.renew();
        } else if (error.after !== null && waited + error.after <= PATIENCE) {
          told.again(`${error.message} Trying again in ${counted(error.after, "second")} …`);
          await pause(error.after, signal);
          waited += error.after;
        } else {
          throw error;
        }
      }
    }
  }

  /** One request, to both. If one fails, the other gets a moment to fail, too: its reason may say more. */
  async #both(request, tokens, told, signal) {
    const ending = new AbortController();
    const either = AbortSignal.any([signal, ending.signal]);
    const asked = request.halves.map(async (half, rank) => {
      const body = await this.#infer(rank, request.id, half, tokens[rank], either);
      told.answered(rank, body);
      return body;
    });
    try {
      return await Promise.all(asked);
    } catch (error) {
      const late = setTimeout(() => ending.abort(), MOMENT);
      const reasons = (await Promise.allSettled(asked)).map(({ reason }) => reason);
      clearTimeout(late);
      throw reasons.find((each) => each instanceof PartyError && !each.passing) ?? error;
    }
  }

  async #infer(rank, id, half, token, signal) {
    const url = `${this.urls[rank]}/v1/infer`;
    let response;
    try {
      response = await fetch(url, {
        method: "POST", body: half, signal, ...APART,
        headers: { Authorization: `Bearer ${token}`, "Content-Type": BODY, "X-Request-Id": id },
      });
      if (response.ok) return new Uint8Array(await response.arrayBuffer());
    } catch (error) {
      if (signal.aborted) throw error;
      throw new PartyError(await unanswered(rank, this.urls[rank], signal));
    }
    const { kind, message } = await reason(response);
    const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    const busy = [429, 503].includes(response.status) && after >= 0;
    throw new PartyError(`Party ${rank} did not answer the request (${response.status}): ${message}.`,
      { after: busy ? after : null, expired: kind === TOKEN });
  }

  /** Ends a session at both parties. They also do it by themselves after a while, so failures are not told. */
  async end(session) {
    try {
      const tokens = await this.#tokens.pair();
      await Promise.allSettled(this.urls.map((url, rank) => fetch(`${url}/v1/sessions/${session}`, {
        method: "DELETE", keepalive: true, ...APART, headers: { Authorization: `Bearer ${tokens[rank]}` },
      })));
    } catch { /* no tokens: nothing can be ended */ }
  }
}

// Neither cookies nor the page's address go to a party, and nothing stays in a cache.
const APART = {
  mode: "cors", credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
};

/** Browsers hide why a request failed. A request whose answer may not be read tells whether anybody is there. */
async function unanswered(rank, url, signal) {
  try {
    await fetch(`${url}/v1/model`, { ...APART, signal, mode: "no-cors", redirect: "follow" });
  } catch {
    return `Party ${rank} does not answer at ${url}. It may be down, or this browser may not trust its certificate: ` +
      "ask its operator, or install the private authority's certificate in this browser.";
  }
  return `Party ${rank} at ${url} is there, but this page may not read its answers. Its operator must add ` +
    `${location.origin} to the origins under [browsers] in its settings.`;
}

/** What a party says of a refusal, {kind, message}. */
async function reason(response) {
  const text = await response.text().catch(() => "");
  let [kind, message] = ["", text];
  try {
    ({ kind, message } = JSON.parse(text).error);
  } catch { /* a plain text */ }
  return { kind, message: String(message).trim().replace(/\.$/, "").slice(0, 500) || "it gave no reason" };
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
