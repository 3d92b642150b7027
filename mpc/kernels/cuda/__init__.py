"""Kernels for GPUs: the CUDA sources (`*.cu`, headers `*.cuh`), how they are made for a device (`device`) and launched
under the reference's names (`launch`), and the three ways of an exact product (`products`, `ways`).

May import the reference and what is beside it; nothing imports this but the choice of kernels.
"""
