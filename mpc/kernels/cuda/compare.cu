// Comparison: one-hot tables, their look-up, and the tables that turn outcomes into shares.
#include "common.cuh"

// Flips bit block[i] of row i of tables (n, size).
KERNEL flip_bits(u8* tables, const u64* block, u64 n, int size) {
    u64 i = element();
    if (i < n) tables[i * size + (block[i] >> 3)] ^= (u8)(1 << (block[i] & 7));
}

// Bit v of each row of size bytes, and the parity of the bits above it: bit 0 and bit 1 of the result.
__device__ inline u32 looked_up(const u8* row, u64 v, int size) {
    int at = (int)(v >> 3), low = (int)(v & 7);
    u32 own = row[at], folded = own >> (low + 1);
    for (int j = at + 1; j < size; ++j) folded ^= row[j];
    return (own >> low & 1) | (u32)(__popc(folded) & 1) << 1;
}

KERNEL look_up(const u8* tables, const u64* v, u64 n, int size, u8* equal, u8* less) {
    u64 i = element();
    if (i >= n) return;
    u32 found = looked_up(tables + i * size, v[i], size);
    equal[i] = (u8)(found & 1);
    less[i] = (u8)(found >> 1);
}

// share ^= this party's shares of [block of v < r's] at bit `place` and, but for the last block, of [=] above it. The
// block is the `bits` bits of v from bit `down` on.
KERNEL outcome(const u8* tables, const u64* v, u64 n, int size, int down, int bits, int place, int last, u64* share) {
    u64 i = element();
    if (i >= n) return;
    u32 found = looked_up(tables + i * size, v[i] >> down & low_bits(bits), size);
    share[i] ^= (u64)(found >> 1) << place | (u64)(last ? 0 : found & 1) << (place + 1);
}

// share ^= bit e of each row of size bytes, at `place`.
KERNEL pick(const u8* tables, const u64* e, u64 n, int size, int place, u64* share) {
    u64 i = element();
    if (i < n) share[i] ^= (u64)(tables[i * size + (e[i] >> 3)] >> (e[i] & 7) & 1) << place;
}

// out (columns, n): entry e[i] of tables (n, entries, columns).
KERNEL gather(const u64* tables, const u64* e, u64 n, int entries, int columns, u64* out) {
    u64 i = element();
    if (i >= n) return;
    const u64* entry = tables + (i * entries + e[i]) * columns;
    for (int j = 0; j < columns; ++j) out[(u64)j * n + i] = entry[j];
}

// [u < r] for the pattern of outcome bits lt_0, eq_0, lt_1, ...
__device__ inline u64 is_below(u64 pattern, int blocks) {
    u64 total = 0, tied = 1;
    for (int b = 0; b < blocks; ++b) {
        total |= tied & pattern >> (2 * b);
        tied &= pattern >> (2 * b + 1);
    }
    return total & 1;
}

// The dealer's rows (n, 2^(2 blocks - 1) / 8 bytes or 1) of less: bit e is msb(r) xor is_below(e xor alpha) xor beta,
// beta being the bit of alpha above. One thread a byte.
KERNEL outcome_rows(const u64* r, const u64* alpha, u64 n, int window, int blocks, u8* out) {
    int bits = 2 * blocks - 1, size = bits > 3 ? 1 << (bits - 3) : 1;
    u64 at = element(), i = at / size;
    if (i >= n) return;
    u64 own = alpha[i] & low_bits(bits), flipped = r[i] >> (window - 1) ^ alpha[i] >> bits;
    u32 row = 0;
    for (int b = 0; b < 8; ++b) {
        u64 e = at % size * 8 + b;
        row |= (u32)(e >> bits ? 0 : is_below(e ^ own, blocks)) << b;
    }
    out[at] = (u8)(row ^ (flipped ? 255 : 0));
}

// The dealer's values of tables (n, entries, columns), entries = 2^(2 blocks - 1), of relu: for entry e, with
// L = is_below(e xor alpha) and c = msb(r) xor L, c; then (1 - c)(r - L 2^window), the product with L only where there is
// a third column, c r. One thread an entry.
KERNEL outcome_tables(const u64* r, const u64* alpha, u64 n, int window, int blocks, int columns, u64* out) {
    u64 at = element();
    u64 i = at >> (2 * blocks - 1), e = at & low_bits(2 * blocks - 1);
    if (i >= n) return;
    u64 lower = is_below(e ^ alpha[i], blocks), c = r[i] >> (window - 1) ^ lower;
    out += at * columns;
    out[0] = c;
    out[1] = (1 - c) * (r[i] - (columns > 2 ? lower << window : 0));
    if (columns > 2) out[2] = c * r[i];
}
