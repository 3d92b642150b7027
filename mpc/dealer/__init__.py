"""Correlated randomness: what there is (`kinds`), how a party asks for it (`correlations`), in which order a program
takes it (`plan`), how our dealer makes it (`service`) and a party gets at that (`source`, `expand`, `ahead`), how it is
kept for later (`store`) and what was used (`serials`).

May import everything below it, down to errors; not the session, and never a share.
"""
