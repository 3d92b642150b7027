"""A party's side of the test whether shared words are 0, which tells nothing else even to a party that deviates.

Party 0 holds a and party 1 holds b, vectors of words modulo 2^64. a + b = 0 says that a = -b: each party knows one of
two vectors, and the question is whether these are equal.

1. digest: each party cuts its vector into halves of 32 bits, and takes inner products with 4 vectors
   of public words, which the coin gives: 4 words, cut into 8 halves again                       local
2. d = the difference of the two digests, half by half; each party's own is its share           local
3. w = d M, where M (8, 4) is uniform and nobody knows it: open e = d - r; w = e M + r M         one round, 64 bytes
4. keys: w_0 and -w_1, which are equal if d = 0. Each party expands two tags from its key;
   party 0 sends the first, party 1 the second, and each compares what came with its own        one round, 32 bytes

*Parties that follow the protocol* miss a difference with a chance of 2^-131. Of vectors that differ, some half differs,
by less than 2^32. So its product with a uniform word is any one word with a chance of 2^-33 at most, and four words of
a digest are equal with 2^-132 (multilinear hashing; Carter, Wegman 1979). In the same way, d M = 0 has 2^-132 for a d
that is not 0.

*A party that deviates* receives a share of e, under the mask r, and a tag. It can bend x before, by words that it
chooses. By what it sends here, it chooses the words y that the other's digest D is compared with: d = D - y. Suppose
that a half of D is not y modulo 2^32. Then 2^32 does not divide this half of d. So each of the 4 words of d M is
uniform above its lowest 31 bits, at most, and the other's key has 132 bits or more that no one else knows, since M is
unknown. As long as ChaCha20 is a random function of its key, the tag tells nothing then, and the tag that the other
expects cannot be made: it is not the one that came, which the party could send back. What is left is one question a
test: is D = y? If the answer is no, the other party notices. A question with the answer yes in a part p of the cases
tells log2(1 / p) bits unnoticed in these cases.

Opening x times a random word instead would tell how often 2 divides x, also where an attack fails: hence halves.
Opening it without keys would let a party that answers last send what makes the sum 0, and hide its question.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secformer.mpc.dealer.products import UnknownFactor
from secformer.mpc.party import Opens, Party
from secformer.mpc.prg import Stream

WORDS = 4  # of a digest, and of a key
HALF = np.uint64(32)
KIND = UnknownFactor(2 * WORDS, WORDS)
TAG_BYTES = 8 * WORDS


def digest(party: Party, words: Any, coin: Stream) -> Opens:
    """Steps 1 to 3 and the keys: four words that are the same at both parties if the shared words are 0. One round. The
    coin must be tossed when these are fixed, and its next words must be new."""
    kernels, first, material = party.kernels, party.rank == 0, party.take(KIND)

    def own(found: Any) -> Any:
        return found if first else np.uint64(0) - found

    held = _halves(party, own(words.reshape(-1)))
    digested = kernels.matmul(held, coin.words(held.size * WORDS).reshape(-1, WORDS))                # 1
    d = own(_halves(party, digested.reshape(-1)).reshape(-1))                                        # 2
    (e,) = yield "digest", [(material.subtracted("mask", d), 64)]                                    # 3
    factor = material.draw("factor").reshape(KIND.rows, KIND.columns)
    return [own(kernels.matmul(e.reshape(1, -1), factor).reshape(-1) + material.draw("product"))]


def tags(party: Party, key: Any) -> Opens:
    """Four words that are 0 if the other party's key is the same: what came, less what was expected. One round."""
    stream = Stream.under(key, party.kernels)                                                        # 4
    found = stream.words(WORDS), stream.words(WORDS)
    (both,) = yield "tag", [(found[party.rank], 64)]
    return [party.kernels.backend.fetched(both - found[0] - found[1], lambda words: words)]


def _halves(party: Party, words: Any) -> Any:
    """The lower and the upper 32 bits of flat words, as words: (1, 2 n)."""
    return party.kernels.backend.joined([words & np.uint64((1 << 32) - 1), words >> HALF]).reshape(1, -1)
