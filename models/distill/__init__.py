"""Students for secure inference: training and distillation through the protocols' own code, and evaluation.

What lives here: labelled texts and metrics (`tasks`, `scores`), evaluation (`evaluate`), the training of teachers
(`finetune`) and of students (`student`), and what both are made of. May import `secformer.models.run` and what that may
import. This is the only room that imports torch; labelled texts, metrics and evaluation work without it.
"""
