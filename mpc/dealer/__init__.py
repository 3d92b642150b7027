"""Correlated randomness: what there is (`kinds`), in which order a program takes it (`plan`), how the dealer makes it
(`service`) and how a party gets at it (`source`, `expand`).

May import everything below it, down to errors; not the session, and never a share.
"""
