"""How the verbs talk: one file per gate, each step numbered as in its docstring. What is opened here is masked by a
fresh uniform mask of the whole opened width; ask of each line what the peer sees.
"""
