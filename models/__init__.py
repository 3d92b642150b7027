"""BERT over the arithmetic black box: folders in, secure answers out.

What lives here: reading a Hugging Face folder (`config`, `tokens`, `weights`, `layout`, `folder`), the model itself
(`encoder`, `heads`), measured ranges (`profile`), and the runs that join them (`pipeline`). May import `secformer.mpc`
and `secformer.protocols`; must not hold numerical coefficients, ranks, or timers, and imports torch nowhere but in
`distill`.
"""
