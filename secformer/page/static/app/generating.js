export function generate() { throw new Error("not yet"); }
