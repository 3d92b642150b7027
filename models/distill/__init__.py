"""Students for secure inference: training and distillation through the protocols' own code (the only part that imports
torch), and evaluation, which does not need it."""
