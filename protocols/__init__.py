"""Protocols: the functions of a Transformer written in a session's verbs, each with its paper, price and error bound.

What lives here:

- one file per function (`exp`, `reciprocal`, `rsqrt`, `tanh`, `gelu`, `softmax`, `layernorm`, `rmsnorm`; `clip` serves
  several of them), and the fits of the series that they evaluate (`fits`)
- the functions of the systems that the paper compares with (`mpcformer`, `puma`, `crypten`), and what those share
  (`limit`, `newton`, `octaves`)
- what a protocol declares: its sources (`papers`), the ranges that it needs measured (`quantities`, `ranges`), and how
  near it comes to the exact function (`fidelity`)
- the recipes that a model runs (`recipes`)

All numerical coefficients of the package are here.

It may import `secformer.mpc` and nothing above; it must not know ranks, devices, messages, words or models. Every
function runs on any session: at a party, in the float64 twin, in the plan recorder.

Errors quoted in docstrings as "measured" are from `bench/functions.py`.
"""
