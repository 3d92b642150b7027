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

#define ROW_WORDS 8

// For every threshold c, xors this party's share of [low window - 1 bits of u - c < r's] into bit start + i of its row,
// of `stride` bytes, of planes; tables (n, size), size at most 8 ROW_WORDS. One thread a byte of the rows. The parities of
// the suffixes of an element's row are made once.
KERNEL below(const u8* tables, const u64* u, u64 n, int size, const u64* thresholds, int count, int window, u64 start,
             u64 stride, u8* planes) {
    u64 octet = (start >> 3) + element(), stop = start + n;
    if (8 * octet >= stop) return;
    u64 first = 8 * octet < start ? start : 8 * octet, last = 8 * octet + 8 < stop ? 8 * octet + 8 : stop;
    for (u64 at = first; at < last; ++at) {
        const u8* row = tables + (at - start) * size;
        u64 above[ROW_WORDS], beyond = 0;  // bit v: the parity of the row's bits above v
        for (int j = (size + 7) / 8 - 1; j >= 0; --j) {
            u64 own = 0;
            for (int b = 8 * j; b < size && b < 8 * j + 8; ++b) own |= (u64)row[b] << (8 * (b & 7));
            u64 suffix = own;
            for (int shift = 1; shift < 64; shift *= 2) suffix ^= suffix >> shift;
            above[j] = suffix ^ own ^ beyond;
            beyond ^= 0 - (suffix & 1);
        }
        for (int t = 0; t < count; ++t) {
            u64 v = u[at - start] - thresholds[t] & low_bits(window - 1);
            planes[t * stride + octet] ^= (u8)((above[v >> 6] >> (v & 63) & 1) << (at & 7));
        }
    }
}

// Bit i of alpha xor the top bit of r, which has `window` bits.
KERNEL signs(const u64* r, const u8* alpha, u64 n, int window, u64* out) {
    u64 i = element();
    if (i < n) out[i] = (u64)(alpha[i >> 3] >> (i & 7) & 1) ^ r[i] >> (window - 1);
}

// This party's share of [x >= c] for x = u - r: `bits` its share of signs, e the opened bits.
KERNEL reaching(const u64* bits, const u8* e, const u64* u, u64 n, u64 threshold, int window, int first, u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 negative = u[i] - threshold >> (window - 1) & 1;
    out[i] = (e[i >> 3] >> (i & 7) & 1) == negative ? (u64)first - bits[i] : bits[i];
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
