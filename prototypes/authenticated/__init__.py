"""Authenticated shares over Z_2^(k+s), after SPDZ2k: products and openings that notice a party which deviates.

    wide     words of 128 bits, as pairs of uint64 words
    shares   authenticated shares, and what a party does with them alone
    dealer   makes keys, shares with MACs, and triples
    party    opens, multiplies, and checks all openings at once
    pair     both parties as threads of one process

The study that belongs to it is docs/authenticated.md.

Source: Cramer, Damgård, Escudero, Scholl, Xing, "SPDZ2k: Efficient MPC mod 2^k for Dishonest Majority", CRYPTO 2018.
Its triples and keys come from a protocol between the parties; here the dealer makes them.
"""
