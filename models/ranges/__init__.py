"""What values a model meets, and what its weights were trained for: known before anything is shared.

What lives here: range profiles (`profile`) and the texts that they are measured on (`samples`), rehearsals of a run
(`rehearsal`), and the functions that a checkpoint was trained for (`trained`). May import `secformer.models.families`
and what that may import.
"""
