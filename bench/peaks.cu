// What the units can do at most: long runs of independent operations in registers. `chains` results keep them honest.
#define CHAINS 8

// multiply-adds of bytes on the tensor cores: 16 * 8 * 32 a warp, chain and round
KERNEL peak_bytes(int rounds, u32* out) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    u32 a[4] = {threadIdx.x, threadIdx.x + 1, threadIdx.x + 2, threadIdx.x + 3}, c[CHAINS][4] = {};
    for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < CHAINS; ++j) multiply_bytes(c[j], a, a[0] + j, a[1] + j);
    u32 total = 0;
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) total += c[j][0] + c[j][1] + c[j][2] + c[j][3];
    out[element()] = total;
#endif
}

// multiply-adds of 64-bit words: one a chain and round
KERNEL peak_words(int rounds, u64* out) {
    u64 x = 2 * element() + 3, c[CHAINS];
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) c[j] = j;
    for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < CHAINS; ++j) c[j] = c[j] * x + i;
    u64 total = 0;
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) total += c[j];
    out[element()] = total;
}

// additions, exclusive ors and rotations of 32-bit numbers: three a chain and round, mixed as in ChaCha20
KERNEL peak_numbers(int rounds, u32* out) {
    u32 x = (u32)element(), c[CHAINS];
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) c[j] = j;
    for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < CHAINS; ++j) {
            c[j] = (c[j] + x) ^ (u32)i;
            c[j] = c[j] << 7 | c[j] >> 25;
        }
    u32 total = 0;
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) total += c[j];
    out[element()] = total;
}

// float64 additions and multiplications, never fused: two a chain and round
KERNEL peak_doubles(int rounds, double* out) {
    double x = 1.0 + 1e-9 * (double)element(), c[CHAINS];
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) c[j] = j;
    for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < CHAINS; ++j) c[j] = c[j] * x + 1.0;
    double total = 0;
#pragma unroll
    for (int j = 0; j < CHAINS; ++j) total += c[j];
    out[element()] = total;
}
