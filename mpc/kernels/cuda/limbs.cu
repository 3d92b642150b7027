// Words as balanced limbs for float64 matrix products, and back: one pass each (bounds: see reference.py).
#include "common.cuh"

// The low `bits` bits as a signed number; rest = what is left above them.
__device__ inline double limb(i64& rest, int bits) {
    i64 low = (i64)((u64)rest << (64 - bits)) >> (64 - bits);
    rest = (rest >> bits) + (rest >> (bits - 1) & 1);
    return (double)low;
}

// out (3, n): limbs of 22, 21 and 21 bits.
KERNEL limbs64(const u64* words, u64 n, double* out) {
    u64 i = element();
    if (i >= n) return;
    i64 rest = (i64)words[i];
    out[i] = limb(rest, 22);
    out[n + i] = limb(rest, 21);
    out[2 * n + i] = limb(rest, 21);
}

// out (2, n): limbs of 16 bits.
KERNEL limbs32(const u32* words, u64 n, double* out) {
    u64 i = element();
    if (i >= n) return;
    i64 rest = (i32)words[i];
    out[i] = limb(rest, 16);
    out[n + i] = (double)(i32)rest;
}

__device__ inline u64 whole(double x) { return (u64)(i64)x; }

// words (+)= low + middle 2^22 + high 2^43, products (6, n): 00, 01, 10, 02, 20, 11 (the last counts twice).
KERNEL joined64(const double* products, u64 n, int more, u64* words) {
    u64 i = element();
    if (i >= n) return;
    u64 middle = whole(products[n + i]) + whole(products[2 * n + i]);
    u64 high = whole(products[3 * n + i]) + whole(products[4 * n + i]) + (whole(products[5 * n + i]) << 1);
    words[i] = (more ? words[i] : 0) + whole(products[i]) + (middle << 22) + (high << 43);
}

// words (+)= low + middle 2^16, products (3, n): 00, 01, 10.
KERNEL joined32(const double* products, u64 n, int more, u32* words) {
    u64 i = element();
    if (i >= n) return;
    u64 middle = whole(products[n + i]) + whole(products[2 * n + i]);
    words[i] = (u32)((more ? words[i] : 0) + whole(products[i]) + (middle << 16));
}
