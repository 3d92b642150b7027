"""Served roles: party, dealer and client as separate processes, connected by mutual TLS.

Operators start them with `secformer party` and `secformer dealer`; clients call `secformer.connect`. The parties need
the extra `serve`. May import `mpc`, `protocols` and `models`; only `views` and `commands` may import it.
"""
