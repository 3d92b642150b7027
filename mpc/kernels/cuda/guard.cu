// Guards (see `mpc/guards`): the dealer's tables, and what a party's rows of values say. A launch takes up to eight.
#include "common.cuh"

#define LOOKERS 256  // threads that look values of a row up
#define SLICE 4096   // values of a row that such a block looks up, all guards of each
#define GUARDS 8

#define EACH(what) what(0), what(1), what(2), what(3), what(4), what(5), what(6), what(7)
#define SHIFT(g) int shift##g
#define FACTS(g) int shift##g, u64 low##g, u64 span##g
#define NAMED_SHIFT(g) shift##g
#define NAMED_LOW(g) low##g
#define NAMED_SPAN(g) span##g

// Bit U is 1 unless every x with u = x + r, whose bits from `shift` on are U, lies in [low, low + span].
__device__ inline u64 table(u64 r, int shift, u64 low, u64 span) {
    u64 start = (r + low) & low_bits(shift + 6);  // where the interval lies in u
    u64 first = start >> shift, inside = start & low_bits(shift);
    u64 end = (inside + span + 1) >> shift;  // parts that end before it, counted from `first`
    u64 good = (1ull << end) - (1ull << (inside != 0));
    return ~(good << first | good >> ((64 - first) & 63));
}

// out (count, n): the tables of guards for masks r, or -r.
KERNEL guard_tables(const u64* r, u64 n, int negated, int count, EACH(FACTS), u64* out) {
    u64 i = element();
    if (i >= n) return;
    const int shifts[GUARDS] = {EACH(NAMED_SHIFT)};
    const u64 lows[GUARDS] = {EACH(NAMED_LOW)}, spans[GUARDS] = {EACH(NAMED_SPAN)};
    u64 own = negated ? 0 - r[i] : r[i];
#pragma unroll
    for (int g = 0; g < GUARDS; ++g)
        if (g < count) out[g * n + i] = table(own, shifts[g], lows[g], spans[g]);
}

// The words of a block's threads, xored.
__device__ inline void gather(u64 found, u64* out) {
    __shared__ u64 pool[LOOKERS];
    pool[threadIdx.x] = found;
    for (u32 half = LOOKERS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) pool[threadIdx.x] ^= pool[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *out = pool[0];
}

// out (rows, parts), of which this writes the first `slices` columns: of u (rows, columns), n values, the xor of the
// weights whose bit of tables is 1. tables and weights (count, n), tables as bytes that start anywhere. One block a slice
// of a row.
KERNEL breaches(const u8* tables, const u64* u, u64 n, u64 columns, u64 slices, u64 parts, int count, EACH(SHIFT),
                const u64* weights, u64* out) {
    const int shifts[GUARDS] = {EACH(NAMED_SHIFT)};
    u64 row = blockIdx.x / slices, slice = blockIdx.x % slices, start = slice * SLICE, found = 0;
    u64 stop = start + SLICE < columns ? start + SLICE : columns;
    for (u64 i = row * columns + start + threadIdx.x; i < row * columns + stop; i += LOOKERS) {
        u64 at = u[i];
#pragma unroll
        for (int g = 0; g < GUARDS; ++g)
            if (g < count && load<u64>(tables + 8 * (g * n + i)) >> (at >> shifts[g] & 63) & 1)
                found ^= weights[g * n + i];
    }
    gather(found, out + row * parts + slice);
}

// out (rows,): each row's words, xored. One block a row.
KERNEL row_xors(const u64* words, u64 columns, u64* out) {
    u64 found = 0;
    for (u64 i = threadIdx.x; i < columns; i += LOOKERS) found ^= words[blockIdx.x * columns + i];
    gather(found, out + blockIdx.x);
}
