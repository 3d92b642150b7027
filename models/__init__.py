"""BERT over the arithmetic black box: folders in, secure answers out.

What lives here: reading a Hugging Face folder (`config`, `tokens`, `weights`, `layout`, `folder`), the model itself
(`encoder`, `heads`), measured ranges (`samples`, `profile`, `check`), what owners share (`sharing`), and the runs that
join them (`options`, `choices`, `pipeline`, `output`). May import `secformer.mpc` and `secformer.protocols`; must not
hold numerical coefficients, ranks or timers. Only `distill`, an optional extra, needs a training framework.
"""
