// ChaCha20 (RFC 8439, zero nonce) fused into what consumes it. A block of threads makes THREADS consecutive 64-byte
// blocks in shared memory, then walks over them element by element, so that device memory sees whole cache lines.
#include "common.cuh"

#define THREADS 128
#define POOL (THREADS * 17)  // 16 numbers a thread, one more against bank conflicts

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define QUARTER(a, b, c, d)                 \
    a += b; d = ROTATE(d ^ a, 16);          \
    c += d; b = ROTATE(b ^ c, 12);          \
    a += b; d = ROTATE(d ^ a, 8);           \
    c += d; b = ROTATE(b ^ c, 7);

struct Key { u64 part[4]; };

__device__ inline void make_block(const Key& key, u32 counter, u32* pool) {
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
                     (u32)key.part[0], (u32)(key.part[0] >> 32), (u32)key.part[1], (u32)(key.part[1] >> 32),
                     (u32)key.part[2], (u32)(key.part[2] >> 32), (u32)key.part[3], (u32)(key.part[3] >> 32),
                     counter, 0u, 0u, 0u};
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
    for (int i = 0; i < 16; ++i) pool[threadIdx.x * 17 + i] = x[i] + start[i];
}

__device__ inline u32 number(const u32* pool, u32 i) { return pool[i + i / 16]; }

// Word j of the pool, read as numbers of `size` bytes.
__device__ inline u64 word(const u32* pool, int size, u32 j) {
    if (size == 8) return number(pool, 2 * j) | (u64)number(pool, 2 * j + 1) << 32;
    if (size == 4) return number(pool, j);
    if (size == 2) return (u16)(number(pool, j / 2) >> (16 * (j % 2)));
    return (u8)(number(pool, j / 4) >> (8 * (j % 4)));
}

// Bytes that a uniform word of so many bits is drawn from.
__device__ inline int drawn(int bits) { return bits <= 8 ? 1 : bits <= 16 ? 2 : bits <= 32 ? 4 : 8; }

// Runs consume(i, word i of the stream) for this block's share of i < n.
template <typename Consume>
__device__ inline void expand(const Key& key, u32 first, u64 n, int size, Consume consume) {
    __shared__ u32 pool[POOL];
    u32 blocks = THREADS * 64 / size;
    u64 start = (u64)blockIdx.x * blocks;
    make_block(key, first + blockIdx.x * THREADS + threadIdx.x, pool);
    __syncthreads();
    for (u32 j = threadIdx.x; j < blocks && start + j < n; j += THREADS) consume(start + j, word(pool, size, j));
}

// The same for two streams at once.
template <typename Consume>
__device__ inline void expand_both(const Key& a, const Key& b, u64 n, int size, Consume consume) {
    __shared__ u32 left[POOL], right[POOL];
    u32 blocks = THREADS * 64 / size;
    u64 start = (u64)blockIdx.x * blocks;
    make_block(a, blockIdx.x * THREADS + threadIdx.x, left);
    make_block(b, blockIdx.x * THREADS + threadIdx.x, right);
    __syncthreads();
    for (u32 j = threadIdx.x; j < blocks && start + j < n; j += THREADS)
        consume(start + j, word(left, size, j), word(right, size, j));
}

#define KEY(k) u64 k##0, u64 k##1, u64 k##2, u64 k##3
#define MADE(k) {{k##0, k##1, k##2, k##3}}

// n numbers of 32 bits, as the stream has them.
KERNEL keystream(KEY(k), u32 first, u64 n, u32* out) {
    Key key = MADE(k);
    expand(key, first, n, 4, [=](u64 i, u64 w) { out[i] = (u32)w; });
}

// n uniform words below 2^bits.
KERNEL uniform(KEY(k), u32 first, u64 n, int bits, u64* out) {
    Key key = MADE(k);
    u64 mask = low_bits(bits);
    expand(key, first, n, drawn(bits), [=](u64 i, u64 w) { out[i] = w & mask; });
}

// out = words + constant + uniform words below 2^bits: a mask expanded into the sum that it masks.
KERNEL masked(KEY(k), u32 first, const u64* words, u64 constant, u64 n, int bits, u64* out) {
    Key key = MADE(k);
    u64 mask = low_bits(bits);
    expand(key, first, n, drawn(bits), [=](u64 i, u64 w) { out[i] = words[i] + constant + (w & mask); });
}

// The same, and its low `bits` bits packed, ready to be opened.
KERNEL sealed(KEY(k), u32 first, const u64* words, u64 constant, u64 n, int bits, u64* out, u8* payload) {
    Key key = MADE(k);
    u64 mask = low_bits(bits);
    int bytes = (bits + 7) / 8;
    expand(key, first, n, drawn(bits), [=](u64 i, u64 w) {
        u64 total = words[i] + constant + (w & mask);
        out[i] = total;
        pack_to(payload, n, bytes, i, total & mask);
    });
}

// What two parties' masks add up to (or xor to), mod 2^bits.
KERNEL combined(KEY(a), KEY(b), u64 n, int bits, int exclusive, u64* out) {
    Key left = MADE(a), right = MADE(b);
    u64 mask = low_bits(bits);
    expand_both(left, right, n, drawn(bits), [=](u64 i, u64 x, u64 y) { out[i] = (exclusive ? x ^ y : x + y) & mask; });
}

// Party 1's correction: value minus party 0's words, packed to the low `bits` bits.
KERNEL correction(KEY(k), const u64* value, u64 n, int bits, u8* payload) {
    Key key = MADE(k);
    u64 mask = low_bits(bits);
    int size = drawn(bits), bytes = (bits + 7) / 8;
    expand(key, 0, n, size, [=](u64 i, u64 w) { pack_to(payload, n, bytes, i, (value[i] - (w & mask)) & mask); });
}

// Bytes xor the stream's bytes.
KERNEL correction_xor(KEY(k), const u8* value, u64 n, u8* payload) {
    Key key = MADE(k);
    expand(key, 0, n, 1, [=](u64 i, u64 w) { payload[i] = (u8)(value[i] ^ w); });
}
