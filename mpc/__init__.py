"""The engine: two-party computation on additive shares over Z_2^64, with a dealer that sees no data.

Start at `session` (the verbs), then `ops` (how a verb talks), `dealer` (what randomness it needs) and `simulate` (all
three roles in one process). Imports point one way:

errors < backend, ring < kernels < fixed, prg < guards < functions, shares < scales < primitives < operators < guarding
< meter < net < dealer < party < ops < session < sessions < simulate

Nothing in here knows about models, and no numerical coefficient of an approximation belongs here.
"""
