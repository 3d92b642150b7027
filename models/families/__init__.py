"""Model families: one file for each architecture, and what they share.

What lives here: the contract that every family keeps (`architecture`), the table of families (`table`), a checkpoint's
folder opened by it (`folder`, `config`), the blocks, activations and heads that families are made of (`blocks`,
`activations`, `heads`, `pooling`), the program that every session runs (`program`), what several families have in
common (`encoder`, `encoder_facts`, `factorised`, `rotary`, `local`, `decoder`, `attending`), the families themselves,
and what sentence-transformers puts behind any of them (`modules`, `sentence`). May import `secformer.models.data`,
`secformer.protocols` and `secformer.mpc`; must not hold numerical coefficients, ranks or timers.
"""
