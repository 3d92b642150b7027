"""A model's data, whatever its family: checkpoints and tokens in, shares out.

What lives here: reading a checkpoint (`checkpoint`, `library`), texts as tokens (`tokenizer`, `batch`), the tensors
that a protocol uses (`tensors`, `parameters`), and the shares that the owner and the client hand to the parties
(`shares`, `inputs`). May import `secformer.mpc`; must not know any model family, recipe or range.
"""
