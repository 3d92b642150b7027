"""Kernels compiled for the CPU by numba: `compiled` has their names, the other files the loops, one idea each.

Importing anything from here needs numba. May import the reference and what is beside it; nothing imports this but the
choice of kernels.
"""
