// The masked exponential, fused: powers of e stay in registers. Only IEEE additions and multiplications in the reference's
// order, so the words are the same to the bit.
#include "common.cuh"

#define SQUARINGS 6

// e^(v unit 2^SQUARINGS); unit = 2^-(fractional bits of v + SQUARINGS).
__device__ inline double grown(u64 v, double unit) {
    double y = (double)(i64)v * unit;
    // Taylor coefficients 1 / n!
    const double exp[12] = {1.0, 1.0, 0.5, 0.16666666666666666, 0.041666666666666664, 0.008333333333333333, 0.001388888888888889, 0.0001984126984126984, 2.48015873015873e-05, 2.7557319223985893e-06, 2.755731922398589e-07, 2.505210838544172e-08};
    double e = exp[11];
#pragma unroll
    for (int i = 10; i >= 0; --i) e = e * y + exp[i];
#pragma unroll
    for (int i = 0; i < SQUARINGS; ++i) e = e * e;
    return e;
}

KERNEL growth(const u64* v, u64 n, double unit, double* out) {
    u64 i = element();
    if (i < n) out[i] = grown(v[i], unit);
}

// out (entries, n), row by row, so that neighbours write side by side; a number's entry lies `down` bits above bit 0.
KERNEL powers(const u64* r, u64 n, int down, double unit, u64 top, const double* factors, int entries, double one,
              u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 step = 1ull << down, up = step - (r[i] & (step - 1));
    u32 own = (u32)(r[i] >> down), last = (u32)entries - 1;
    double e = grown(up, unit), second = up <= top ? one : factors[1];
    for (u32 entry = 0; entry <= last; ++entry) {
        u32 m = (entry - own) & last;  // places above r's own
        out[(u64)entry * n + i] = rounded(e * (m == 1 ? second : factors[m]));
    }
}

// table (entries, n)
KERNEL exponential(const u64* u, u64 n, int down, double unit, const u64* table, double one, u64* out) {
    u64 i = element();
    if (i >= n) return;
    out[i] = rounded(grown(u[i] & low_bits(down), unit) * one) * table[(u[i] >> down) * n + i];
}
