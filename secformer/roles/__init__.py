"""Served roles: party, dealer and client as processes of their own, joined by mutual TLS.

Operators start them with `secformer party` and `secformer dealer`; clients call `secformer.connect`. Needs the extra
`serve`.
"""
