// Public harmonics and series sums, fused: the turn, the three-term recurrence, rounding, products and the sum stay in
// registers. Only IEEE additions and multiplications in the reference's order, so the words are the same to the bit.
#include "common.cuh"

#define FUNCTIONS 4  // series of one opening that a launch sums up at once

struct Turn { double cos, sin; };

// cos and sin of 2 pi u / 2^bits; unit = 2 pi / 2^bits.
__device__ inline Turn turn_of(u64 u, int bits, double unit) {
    u64 quarter = (u + (1ull << (bits - 3))) >> (bits - 2);
    double y = (double)(i64)(u - (quarter << (bits - 2))) * unit;
    double z = y * y;
    // Taylor coefficients 1 / n! with alternating signs
    const double odd[8] = {1.0, -0.16666666666666666, 0.008333333333333333, -0.0001984126984126984,
                           2.7557319223985893e-06, -2.505210838544172e-08, 1.6059043836821613e-10,
                           -7.647163731819816e-13};
    const double even[9] = {1.0, -0.5, 0.041666666666666664, -0.001388888888888889, 2.48015873015873e-05,
                            -2.755731922398589e-07, 2.08767569878681e-09, -1.1470745597729725e-11,
                            4.779477332387385e-14};
    double s = odd[7], c = even[8];
#pragma unroll
    for (int i = 6; i >= 0; --i) s = s * z + odd[i];
#pragma unroll
    for (int i = 7; i >= 0; --i) c = c * z + even[i];
    s = s * y;
    u32 turned = (u32)quarter & 3;
    double first = turned & 1 ? s : c, second = turned & 1 ? c : s;
    return {turned == 1 || turned == 2 ? -first : first, turned >= 2 ? -second : second};
}

// cos(k t) and sin(k t) for k = 1, 2, ...
struct Multiples {
    double c0, c1, s0, s1, twice;
    __device__ Multiples(Turn t) : c0(1.0), c1(t.cos), s0(0.0), s1(t.sin), twice(t.cos + t.cos) {}
    __device__ void next() {
        double c = twice * c1 - c0, s = twice * s1 - s0;
        c0 = c1; s0 = s1; c1 = c; s1 = s;
    }
};

KERNEL turn(const u64* u, u64 n, int bits, double unit, double* cos, double* sin) {
    u64 i = element();
    if (i >= n) return;
    Turn t = turn_of(u[i], bits, unit);
    cos[i] = t.cos;
    sin[i] = t.sin;
}

// out (2 count, n): words of cos(k t), then of sin(k t).
KERNEL harmonics(const u64* r, u64 n, int bits, double unit, int count, double one, u64* out) {
    u64 i = element();
    if (i >= n) return;
    Multiples t(turn_of(r[i], bits, unit));
    for (int k = 0; k < count; ++k, t.next()) {
        out[(u64)k * n + i] = rounded(t.c1 * one);
        out[(u64)(count + k) * n + i] = rounded(t.s1 * one);
    }
}

// out (functions, n), functions <= FUNCTIONS: one party's sums over the harmonics. factors (2, functions, count): of
// cosine and sine, scaled; words (2 count, n).
KERNEL series(const u64* u, u64 n, int bits, double unit, int functions, int count, const double* factors,
              const u64* words, u64* out) {
    u64 i = element();
    if (i >= n) return;
    Multiples t(turn_of(u[i], bits, unit));
    u64 total[FUNCTIONS] = {};
    for (int k = 0; k < count; ++k, t.next()) {
        u64 wc = words[(u64)k * n + i], ws = words[(u64)(count + k) * n + i];
#pragma unroll
        for (int f = 0; f < FUNCTIONS; ++f)
            if (f < functions) {
                double a = factors[f * count + k], b = factors[(functions + f) * count + k];
                total[f] += rounded(a * t.c1 + b * t.s1) * wc + rounded(a * t.s1 - b * t.c1) * ws;
            }
    }
#pragma unroll
    for (int f = 0; f < FUNCTIONS; ++f)
        if (f < functions) out[(u64)f * n + i] = total[f];
}
