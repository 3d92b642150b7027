"""Models over the arithmetic black box: folders and texts in, secure answers out.

Six rooms, each of which may import those before it: `data` (checkpoints, tokens, shares), `families` (architectures
and their programs), `ranges` (what values a model meets), `generation` (a decoder's prompts and tokens, in plaintext at
the client), `run` (in one process, or provisioned for served parties), and `distill` (students; the only room that
needs a training framework). May import `secformer.mpc` and `secformer.protocols`; must not hold numerical coefficients,
ranks or timers. The model that ships with the package lies in `demo`.
"""
