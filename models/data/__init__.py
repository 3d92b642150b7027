"""A model's data, whatever its family: checkpoints and tokens in, shares out.

What lives here: reading a checkpoint (`checkpoint`, `library`), texts as tokens (`tokenizer`, `batch`), the tensors
that a protocol uses (`tensors`, `parameters`), and what the owners of weights and of inputs hand to the parties
(`shares`, `inputs`). May import `secformer.mpc`; must not know any model family, recipe or range.
"""
