/** Starts the page: reads what it is to show, loads the model's tokenizer, and connects the form. */

import { load } from "../core/secformer.js";
import { Asking } from "./asking.js";
import { byId, element } from "./dom.js";
import { Form } from "./form.js";
import { Parties } from "./parties.js";
import { Tokens } from "./tokens.js";

const MODEL = "model";

async function start() {
  // over plain HTTP, anybody on the way could send another page, which keeps the text
  if (!isSecureContext) {
    throw new Error("This page came over plain HTTP, so it may have been changed on its way. Open it over HTTPS, or on " +
      "the machine that serves it.");
  }
  const facts = JSON.parse(new TextDecoder().decode(await read("page.json")));
  const model = await load((name) => read(`${MODEL}/${name}`));
  const parties = new Parties(facts.parties, new Tokens(facts.tokens));
  const form = new Form(model);
  const asking = new Asking(model, parties);
  form.connect((readings, texts, options) => asking.run(readings, texts, options), () => asking.stop());
  const [first, second] = parties.urls.map((url) => new URL(url).host);
  byId("who").textContent = `Party 0 is ${first}, party 1 is ${second}. Both must be run by people who do not share ` +
    `what they receive. This page was served by ${location.host}, which you trust with your text: it could have sent ` +
    "you another page. It sends nothing to anybody else and stores nothing.";
  byId("starting").hidden = true;
  byId("form").hidden = false;
}

async function read(name) {
  const response = await fetch(new URL(name, document.baseURI), { cache: "no-cache", redirect: "error" });
  if (!response.ok) throw new Error(`This page lacks its file ${name} (${response.status}). Make the page again.`);
  return response.arrayBuffer();
}

start().catch((error) => {
  byId("starting").hidden = true;
  byId("broken").replaceChildren(element("p", {}, element("strong", {}, "This page cannot start.")),
    element("p", {}, error.message));
  byId("broken").hidden = false;
});
