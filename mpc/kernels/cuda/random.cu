// ChaCha20 (RFC 8439, zero nonce) fused into what consumes it. A block of threads makes the 64-byte blocks of GROUP
// consecutive words in shared memory, then walks over the words, so that device memory sees whole cache lines.
#include "common.cuh"
#include "chacha.cuh"

#define THREADS 128
#define GROUP 2048u  // words: whole 64-byte blocks of every plane
#define POOL (GROUP / 8 * 17)  // of words of eight bytes; 16 numbers a 64-byte block, one more against bank conflicts

struct Key { u64 part[4]; };

// A key comes by value, or where `row` is not negative from a table in device memory: a launch that is recorded once and
// repeated gets fresh keys that way.
__device__ inline Key key_of(const u64* table, int row, u64 a, u64 b, u64 c, u64 d) {
    if (row < 0) return {{a, b, c, d}};
    const u64* own = table + 4 * (u64)row;
    return {{own[0], own[1], own[2], own[3]}};
}

__device__ inline void make_block(const Key& key, u32 counter, u32* out) {
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
                     (u32)key.part[0], (u32)(key.part[0] >> 32), (u32)key.part[1], (u32)(key.part[1] >> 32),
                     (u32)key.part[2], (u32)(key.part[2] >> 32), (u32)key.part[3], (u32)(key.part[3] >> 32),
                     counter, 0u, 0u, 0u};
    permuted(start, out);
}

// The blocks that this block of threads needs of the stream of n words of `bytes` bytes. Words lie there as in a payload,
// in planes, each of which starts at a 64-byte block.
__device__ inline void fill(const Key& key, u32 first, u32 block, u64 n, int bytes, u32* pool) {
    for (int width = 8; width; width /= 2) {
        if (!(bytes & width)) continue;
        u32 own = GROUP * width / 64;
        for (u32 q = threadIdx.x; q < own; q += THREADS) make_block(key, first + block * own + q, pool + q * 17);
        first += (u32)((n * width + 63) / 64);
        pool += own * 17;
    }
}

__device__ inline u32 number(const u32* pool, u32 i) { return pool[i + i / 16]; }

// Word j of the pool.
__device__ inline u64 word(const u32* pool, int bytes, u32 j) {
    if (bytes & 8) return number(pool, 2 * j) | (u64)number(pool, 2 * j + 1) << 32;
    u64 found = 0;
    int shift = 0;
    u32 before = 0;
    if (bytes & 4) { found = number(pool, j); before = GROUP; shift = 32; }
    if (bytes & 2) {
        found |= (u64)(u16)(number(pool, before + j / 2) >> (16 * (j % 2))) << shift;
        before += GROUP / 2;
        shift += 16;
    }
    if (bytes & 1) found |= (u64)(u8)(number(pool, before + j / 4) >> (8 * (j % 4))) << shift;
    return found;
}

// Runs consume(i, word i of the stream) for the share of i < n that is one block's.
template <typename Consume>
__device__ inline void expand_at(u32 block, const Key& key, u32 first, u64 n, int bytes, Consume consume) {
    __shared__ u32 pool[POOL];
    u64 start = (u64)block * GROUP;
    fill(key, first, block, n, bytes, pool);
    __syncthreads();
    for (u32 j = threadIdx.x; j < GROUP && start + j < n; j += THREADS) consume(start + j, word(pool, bytes, j));
}

template <typename Consume>
__device__ inline void expand(const Key& key, u32 first, u64 n, int bytes, Consume consume) {
    expand_at(blockIdx.x, key, first, n, bytes, consume);
}

// The same for two streams at once.
template <typename Consume>
__device__ inline void expand_both(u32 block, const Key& a, const Key& b, u64 n, int bytes, Consume consume) {
    __shared__ u32 left[POOL], right[POOL];
    u64 start = (u64)block * GROUP;
    fill(a, 0, block, n, bytes, left);
    fill(b, 0, block, n, bytes, right);
    __syncthreads();
    for (u32 j = threadIdx.x; j < GROUP && start + j < n; j += THREADS)
        consume(start + j, word(left, bytes, j), word(right, bytes, j));
}

// Whole bytes of words below 2^bits.
__device__ inline int whole(int bits) { return (bits + 7) / 8; }

#define KEY(k) const u64* k##table, int k##row, u64 k##0, u64 k##1, u64 k##2, u64 k##3
#define MADE(k) key_of(k##table, k##row, k##0, k##1, k##2, k##3)

// n numbers of 32 bits, as the stream has them.
KERNEL keystream(KEY(k), u32 first, u64 n, u32* out) {
    Key key = MADE(k);
    expand(key, first, n, 4, [=](u64 i, u64 w) { out[i] = (u32)w; });
}

// n uniform words below 2^bits.
KERNEL uniform(KEY(k), u32 first, u64 n, int bits, u64* out) {
    Key key = MADE(k);
    u64 mask = low_bits(bits);
    expand(key, first, n, whole(bits), [=](u64 i, u64 w) { out[i] = w & mask; });
}

// Party 1's correction: value minus party 0's words, packed to the low `bits` bits.
KERNEL correction(KEY(k), const u64* value, u64 n, int bits, u8* payload) {
    Key key = MADE(k);
    u64 mask = low_bits(bits);
    int bytes = whole(bits);
    expand(key, 0, n, bytes, [=](u64 i, u64 w) { pack_to(payload, n, bytes, i, (value[i] - (w & mask)) & mask); });
}

// Bytes xor the stream's bytes.
KERNEL correction_xor(KEY(k), const u8* value, u64 n, u8* payload) {
    Key key = MADE(k);
    expand(key, 0, n, 1, [=](u64 i, u64 w) { payload[i] = (u8)(value[i] ^ w); });
}

// The first thing that a recorded run does. A table of keys starts with the number of the run that it was made for, and
// `last` is the number of the run before. Keys that were used, or never came (0), end everything here.
KERNEL claim_keys(const u64* table, u64* last) {
    if (table[0] <= *last) __trap();
    *last = table[0];
}

// out (rows,) ^= of u (rows, columns), n values, the stream's words (count, n) whose bit of tables is 1: what `breaches` of
// `guard.cu` does with weights that lie in memory. tables (count, n), as bytes that start anywhere.
#define WATCHED 32
#define SHIFT(j) int shift##j
#define NAMED_SHIFT(j) shift##j
#define WATCHES(what)                                                                                             \
    JOBS(what), what(16), what(17), what(18), what(19), what(20), what(21), what(22), what(23), what(24),         \
        what(25), what(26), what(27), what(28), what(29), what(30), what(31)

KERNEL weigh(KEY(k), u32 first, const u8* tables, const u64* u, u64 n, u64 columns, int count, WATCHES(SHIFT), u64* out) {
    __shared__ u32 pool[POOL];
    __shared__ u64 sums[THREADS];
    const int shifts[WATCHED] = {WATCHES(NAMED_SHIFT)};
    u64 start = (u64)blockIdx.x * GROUP, all = n * (u64)count, stop = start + GROUP < all ? start + GROUP : all;
    fill(MADE(k), first, blockIdx.x, all, 8, pool);
    __syncthreads();
    u64 found = 0, row = start % n / columns;
    for (u64 t = start + threadIdx.x; t < stop; t += THREADS) {
        u64 g = start / n, i = t - g * n;
        for (; i >= n; ++g) i -= n;
        u64 own = n >> 32 ? i / columns : (u32)i / (u32)columns;
        if (own != row) {
            if (found) atomicXor(out + row, found);
            found = 0;
            row = own;
        }
        if (load<u64>(tables + 8 * t) >> (u[i] >> shifts[g] & 63) & 1) found ^= word(pool, 8, (u32)(t - start));
    }
    if (start / n != (stop - 1) / n || start % n / columns != (stop - 1) % n / columns) {  // rows end in this block
        if (found) atomicXor(out + row, found);
        return;
    }
    sums[threadIdx.x] = found;
    for (u32 half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] ^= sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) atomicXor(out + row, sums[0]);
}

// ---- several arrays of shares at once ----

// A piece that this block works on: `n` words below 2^bits, or, if `raw`, bytes; `at` is where it starts in the output.
struct Piece { u64 n; int bits, raw; u64 at; };

#define PIECE(j) u64 n##j, int bits##j, int raw##j, u64 at##j
#define BLOCKS(j) (j < count ? (n##j + GROUP - 1) / GROUP : 0)

// What two parties' masks add up to (or xor to), mod 2^bits, or mod 2^64: several masks, each with both parties' streams.
#define COMBINED(j) KEY(left##j##_), KEY(right##j##_), u64 n##j, int bits##j, int exclusive##j, int carries##j, u64 at##j
KERNEL combined(int count, JOBS(COMBINED), u8* out) {
    u32 block = blockIdx.x;
    bool found = false;
    Key left = {}, right = {};
    u64 n = 0, at = 0;
    int bits = 0, exclusive = 0, carries = 0;
#define TAKE(j)                                                                                             \
    if (takes(block, found, BLOCKS(j))) {                                                                   \
        left = MADE(left##j##_); right = MADE(right##j##_);                                                 \
        n = n##j; bits = bits##j; exclusive = exclusive##j; carries = carries##j; at = at##j;               \
    }
    EACH_JOB(TAKE)
#undef TAKE
    u64 mask = low_bits(bits), kept = carries ? low_bits(64) : mask;
    u64* to = (u64*)(out + at);
    expand_both(block, left, right, n, whole(bits), [=](u64 i, u64 x, u64 y) {
        to[i] = exclusive ? (x ^ y) & mask : ((x & mask) + (y & mask)) & kept;
    });
}

// Each stream's first words, or bytes.
#define SHARE(j) KEY(key##j##_), PIECE(j)
KERNEL shares(int count, JOBS(SHARE), u8* out) {
    u32 block = blockIdx.x;
    bool found = false;
    Key key = {};
    Piece piece = {};
#define TAKE(j) if (takes(block, found, BLOCKS(j))) { key = MADE(key##j##_); piece = {n##j, bits##j, raw##j, at##j}; }
    EACH_JOB(TAKE)
#undef TAKE
    u64 mask = low_bits(piece.bits);
    u8* to = out + piece.at;
    expand_at(block, key, 0, piece.n, piece.raw ? 1 : whole(piece.bits), [=](u64 i, u64 w) {
        if (piece.raw) to[i] = (u8)w;
        else ((u64*)to)[i] = w & mask;
    });
}

// Party 1's corrections of several fields, one behind the other: values minus party 0's words, packed, or bytes xor its
// bytes.
#define CORRECTED(j) KEY(key##j##_), const u8* value##j, PIECE(j)
KERNEL corrections(int count, JOBS(CORRECTED), u8* out) {
    u32 block = blockIdx.x;
    bool found = false;
    Key key = {};
    Piece piece = {};
    const u8* value = 0;
#define TAKE(j)                                                                     \
    if (takes(block, found, BLOCKS(j))) {                                           \
        key = MADE(key##j##_); piece = {n##j, bits##j, raw##j, at##j}; value = value##j; \
    }
    EACH_JOB(TAKE)
#undef TAKE
    u64 mask = low_bits(piece.bits);
    int bytes = piece.raw ? 1 : whole(piece.bits);
    u8* to = out + piece.at;
    expand_at(block, key, 0, piece.n, bytes, [=](u64 i, u64 w) {
        if (piece.raw) to[i] = (u8)(value[i] ^ w);
        else pack_to(to, piece.n, bytes, i, (((const u64*)value)[i] - (w & mask)) & mask);
    });
}

// What is sealed: `n` words of `size` bytes each, without their lowest `down` bits, rounded down or up, plus a constant;
// plus a mask below 2^bits, or, `away`, minus it. The low bits of this are packed from place `at` on. If it `keeps`, it
// writes what the words are less than what is opened (see `Masked.rest`).
struct Item { const u8* words; int size, down, up; u64 constant, n; int bits, away, keeps; u64 at; u64* rest; };

#define SEALED(j)                                                                                                     \
    KEY(key##j##_), u32 first##j, const u8* words##j, int size##j, int down##j, int up##j, u64 constant##j, u64 n##j, \
        int bits##j, int away##j, int keeps##j, u64 at##j, u64* rest##j

KERNEL seal(int count, JOBS(SEALED), u8* out) {
    u32 block = blockIdx.x, first = 0;
    bool found = false;
    Key key = {};
    Item item = {};
#define TAKE(j)                                                                                                   \
    if (takes(block, found, BLOCKS(j))) {                                                                         \
        key = MADE(key##j##_); first = first##j;                                                                  \
        item = {words##j, size##j, down##j, up##j, constant##j, n##j, bits##j, away##j, keeps##j, at##j, rest##j}; \
    }
    EACH_JOB(TAKE)
#undef TAKE
    u64 mask = low_bits(item.bits);
    int bytes = whole(item.bits);
    expand_at(block, key, first, item.n, bytes, [=](u64 i, u64 w) {
        u64 z = item.size == 8 ? ((const u64*)item.words)[i] : item.size == 4 ? ((const u32*)item.words)[i] : item.words[i];
        z = item.up ? 0 - ((0 - z) >> item.down) : z >> item.down;
        u64 r = w & mask, total = item.away ? z - r : z + item.constant + r;
        pack_to(out + item.at, item.n, bytes, i, total & mask);
        if (item.keeps) item.rest[i] = item.away ? r : 0 - item.constant - r;
    });
}
