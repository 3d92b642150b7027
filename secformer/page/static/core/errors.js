/** What goes wrong, as the Python client names it. Messages say what holds, what came and what to do. */

/** A text that the model cannot take. Nothing was sent. */
export class InputError extends Error {
  name = "InputError";
}

/** An answer that cannot be read, or halves that do not belong together. */
export class ProtocolError extends Error {
  name = "ProtocolError";
}

/** A model's folder that this page cannot use. */
export class ModelError extends Error {
  name = "ModelError";
}
