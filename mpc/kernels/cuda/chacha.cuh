// The rounds of ChaCha20 (RFC 8439), for every generator. Behind common.cuh.
#ifndef SECFORMER_CHACHA_CUH
#define SECFORMER_CHACHA_CUH

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define QUARTER(a, b, c, d)                 \
    a += b; d = ROTATE(d ^ a, 16);          \
    c += d; b = ROTATE(b ^ c, 12);          \
    a += b; d = ROTATE(d ^ a, 8);           \
    c += d; b = ROTATE(b ^ c, 7);

// The block of a state of sixteen words.
__device__ inline void permuted(const u32* start, u32* out) {
    u32 x[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) x[i] = start[i];
#pragma unroll
    for (int i = 0; i < 10; ++i) {
        QUARTER(x[0], x[4], x[8], x[12])
        QUARTER(x[1], x[5], x[9], x[13])
        QUARTER(x[2], x[6], x[10], x[14])
        QUARTER(x[3], x[7], x[11], x[15])
        QUARTER(x[0], x[5], x[10], x[15])
        QUARTER(x[1], x[6], x[11], x[12])
        QUARTER(x[2], x[7], x[8], x[13])
        QUARTER(x[3], x[4], x[9], x[14])
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) out[i] = x[i] + start[i];
}

#endif
