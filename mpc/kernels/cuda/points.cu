// One party's rows of words, from its keys of point functions (see `mpc/kernels/points`, which has the tree).
#include "common.cuh"
#include "chacha.cuh"

#define LEAF 16       // words of a leaf; as in mpc/kernels/points.py
#define LEAF_WORDS 8  // words of one block of a leaf
#define LEAF_COUNTER 0x80000000u

// A block under a seed of 128 bits; the salt and the token's number are the nonce.
struct Generator {
    u32 salt0, salt1, token;

    __device__ void operator()(const u32* seed, u32 counter, u32* out) const {
        const u32 start[16] = {0x61707865u, 0x3120646eu, 0x79622d36u, 0x6b206574u, seed[0], seed[1], seed[2], seed[3],
                               seed[0], seed[1], seed[2], seed[3], counter, salt0, salt1, token};
        permuted(start, out);
    }
};

// out (n, columns). seeds (n, 4), corrections (n, depth, 4), turns (n, depth), finals (n, LEAF). One thread a leaf: it
// goes down from the root by itself. That makes a leaf's path anew instead of once for all leaves below a node, some four
// times the blocks; in return, no thread waits for another, and nothing but the row goes through memory.
KERNEL points(const u32* seeds, const u32* corrections, const u8* turns, const u64* finals, u32 salt0, u32 salt1,
              int rank, int depth, u64 n, u64 leaves, u64 columns, u64* out) {
    u64 i = element();
    if (i >= n * leaves) return;
    u64 token = i / leaves, leaf = i % leaves;
    const Generator make = {salt0, salt1, (u32)token};
    u32 seed[4], found[16], bit = (u32)rank;
#pragma unroll
    for (int w = 0; w < 4; ++w) seed[w] = seeds[4 * token + w];
    for (int level = 0; level < depth; ++level) {
        make(seed, (u32)level, found);
        u64 at = token * depth + level;
        u32 right = (u32)(leaf >> level) & 1u, turn = turns[at] >> right & 1u, on = 0u - bit;
#pragma unroll
        for (int w = 0; w < 4; ++w) seed[w] = (right ? found[4 + w] : found[w]) ^ (on & corrections[4 * at + w]);
        bit = ((right ? found[9] : found[8]) ^ (bit & turn)) & 1u;
    }
    for (int block = 0; block < LEAF / LEAF_WORDS; ++block) {
        make(seed, LEAF_COUNTER + block, found);
        u64 to = LEAF * leaf + LEAF_WORDS * block;
#pragma unroll
        for (int w = 0; w < LEAF_WORDS; ++w) {
            if (to + w >= columns) break;
            u64 word = found[2 * w] | (u64)found[2 * w + 1] << 32;
            if (bit) word += finals[LEAF * token + LEAF_WORDS * block + w];
            out[token * columns + to + w] = rank ? 0 - word : word;
        }
    }
}
