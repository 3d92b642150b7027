// Exact matrix products on the byte units of the tensor cores (compute capability 8.0 and later).
//
// A word is its D bytes: a = sum of a_i 2^(8 i), and a b mod 2^(8 D) is the sum of a_i b_j 2^(8 (i + j)) over
// i + j < D: 36 products of bytes for D = 8, 21 for 48 bits, 10 for 32. Products of equal shift s = i + j share one
// 32-bit accumulator, which wraps: only its low 8 (D - s) bits count. For s >= D - 4 those are at most 32, so wrapping is
// harmless; below, (s + 1) k 255^2 < 2^32 must hold, which bounds the inner length (`longest` in the launching code).
// Unsigned bytes need no carries, so splitting a word costs nothing but moving its bytes.
//
// First both operands are split into byte planes, blocked so that what a stage of the product reads is one run of
// 16-byte pieces: [batch][64 rows or columns][32 inner steps][digit][row][32 bytes]. The two halves of a row are
// swapped by rows of four, so that eight rows of a matrix load touch every bank once.
#include "common.cuh"
#include "tensor.cuh"

#define SIDE 64     // rows or columns of a block of the result
#define STEP 32     // inner steps of a stage
#define STAGES 3    // of the ring of copies in flight
#define BAND 8      // blocks, one above the other, that run together
#define PLANE (SIDE * STEP)

__device__ inline u32 place(u32 row, u32 byte) { return row * STEP + (byte ^ (row & 4) << 2); }

// Byte `digit` of four words, as one number.
__device__ inline u32 four(u64 w0, u64 w1, u64 w2, u64 w3, int digit) {
    int shift = 8 * digit;
    return (u32)(u8)(w0 >> shift) | (u32)(u8)(w1 >> shift) << 8 | (u32)(u8)(w2 >> shift) << 16 |
           (u32)(u8)(w3 >> shift) << 24;
}

// Operands of two products that are added up come together: the inner steps of the second lie behind those of the first.
template <typename Word>
__device__ inline u32 own_step(const Word*& words, const Word* more, int each) {
    if ((int)blockIdx.x < each) return blockIdx.x;
    words = more;
    return blockIdx.x - each;
}

// Rows: words and more (batch, n, k). A thread takes four inner steps of one row; a block of 256, one tile of 32 rows x
// 32 steps.
template <typename Word>
__device__ inline void rows_split(const Word* words, const Word* more, int each, int n, int k, int digits, u8* planes) {
    u32 row = blockIdx.y * 32 + threadIdx.x / 8, byte = threadIdx.x % 8 * 4;
    u32 at = own_step(words, more, each) * STEP + byte;
    words += ((u64)blockIdx.z * n + row) * k + at;
    u64 w[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) w[i] = row < (u32)n && at + i < (u32)k ? words[i] : 0;
    u64 tile = ((u64)blockIdx.z * (gridDim.y / 2) + row / SIDE) * gridDim.x + blockIdx.x;
    u8* to = planes + tile * digits * PLANE + place(row % SIDE, byte);
    for (int d = 0; d < digits; ++d) *(u32*)(to + d * PLANE) = four(w[0], w[1], w[2], w[3], d);
}

// Columns: words and more (batch, k, m), turned so that inner steps lie side by side. A block of 256 takes 32 steps x 32
// columns.
template <typename Word>
__device__ inline void columns_split(const Word* words, const Word* more, int each, int k, int m, int digits,
                                     u8* planes) {
    __shared__ Word turned[32][33];
    u32 step = own_step(words, more, each), first = blockIdx.y * 32;
    words += (u64)blockIdx.z * k * m;
#pragma unroll
    for (u32 i = threadIdx.x / 32; i < 32; i += 8) {
        u32 p = step * STEP + i, q = first + threadIdx.x % 32;
        turned[i][threadIdx.x % 32] = p < (u32)k && q < (u32)m ? words[(u64)p * m + q] : 0;
    }
    __syncthreads();
    u32 column = threadIdx.x / 8, byte = threadIdx.x % 8 * 4, row = first + column;
    u64 tile = ((u64)blockIdx.z * (gridDim.y / 2) + row / SIDE) * gridDim.x + blockIdx.x;
    u8* to = planes + tile * digits * PLANE + place(row % SIDE, byte);
    for (int d = 0; d < digits; ++d)
        *(u32*)(to + d * PLANE) = four(turned[byte][column], turned[byte + 1][column], turned[byte + 2][column],
                                       turned[byte + 3][column], d);
}

#define SPLIT(side, Word, width)                                                                                     \
    KERNEL split_##side##width(const Word* words, const Word* more, int each, int a, int b, int digits, u8* planes) { \
        side##_split(words, more, each, a, b, digits, planes);                                                        \
    }
SPLIT(rows, u64, 64)
SPLIT(rows, u32, 32)
SPLIT(columns, u64, 64)
SPLIT(columns, u32, 32)

// c (batch, n, m) = the product of split operands over inner steps [from, from + steps) of `of`; `more` adds to what c
// holds. Eight warps, each 32 rows x 16 columns, all D accumulators of a result element in one thread's registers.
// A product of few blocks is cut into `parts` along the inner side, so that the device is full: the parts add to c, in
// any order, as sums of words are the same in every order.
template <int D, typename Word>
__device__ inline void digit_product(const u8* a, const u8* b, Word* c, int n, int m, int from, int steps, int of,
                                     int more, int parts) {
    DYNAMIC_SHARED(pool);
    int each = (steps + parts - 1) / parts, before = blockIdx.z % parts * each;
    steps = steps - before < each ? steps - before : each;
    if (steps <= 0) return;
    from += before;
    u64 z = blockIdx.z / parts;
    const u32 stage = 2 * D * PLANE, pieces = D * PLANE / 16;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    // Blocks that run at the same time lie close together, BAND rows high, so that they read the same planes.
    u32 number = blockIdx.y * gridDim.x + blockIdx.x, band = number / (BAND * gridDim.x);
    u32 inside = number % (BAND * gridDim.x);
    u32 height = band * BAND + BAND <= gridDim.y ? BAND : gridDim.y - band * BAND;
    u32 block_row = band * BAND + inside % height, block_column = inside / height;
    a += ((z * gridDim.y + block_row) * of + from) * D * PLANE;
    b += ((z * gridDim.x + block_column) * of + from) * D * PLANE;

    auto fetch = [&](int step) {
        if (step < steps) {
            u8* to = pool + step % STAGES * stage;
            u64 skip = (u64)step * D * PLANE;
#pragma unroll
            for (u32 i = 0; i < D; ++i) {  // the pieces of both operands, 256 at a time
                u32 piece = threadIdx.x + 256 * i;
                copy_async(to + 16 * piece, (piece < pieces ? a + 16 * piece : b + 16 * (piece - pieces)) + skip);
            }
        }
        commit_copies();  // an empty group keeps the count
    };
    for (int i = 0; i < STAGES - 1; ++i) fetch(i);

    // This thread's rows in the matrix loads: of a, rows then halves; of b, halves then columns.
    u32 top = warp / 4 * 32, side = warp % 4 * 16;
    u32 row = top + lane % 16, half = lane / 16 * 16;
    u32 at_a[2] = {place(row, half), place(row + 16, half)};
    u32 at_b = D * PLANE + place(side + lane / 16 * 8 + lane % 8, lane / 8 % 2 * 16);

    u32 sum[2][2][D][4] = {};
    for (int step = 0; step < steps; ++step) {
        await_copies<STAGES - 2>();
        __syncthreads();  // everybody's copies of this stage are here, and everybody has left the stage before
        fetch(step + STAGES - 1);
        const u8* here = pool + step % STAGES * stage;
        u32 right[D][4];
#pragma unroll
        for (int j = 0; j < D; ++j) load_matrices(right[j], here + at_b + j * PLANE);
#pragma unroll
        for (int t = 0; t < 2; ++t)
#pragma unroll
            for (int i = 0; i < D; ++i) {
                u32 left[4];
                load_matrices(left, here + at_a[t] + i * PLANE);
#pragma unroll
                for (int j = 0; j < D - i; ++j) {
                    multiply_bytes(sum[t][0][i + j], left, right[j][0], right[j][1]);
                    multiply_bytes(sum[t][1][i + j], left, right[j][2], right[j][3]);
                }
            }
    }

    c += z * n * m;
#pragma unroll
    for (int t = 0; t < 2; ++t)
#pragma unroll
        for (int s = 0; s < 2; ++s)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                u32 r = block_row * SIDE + top + 16 * t + e / 2 * 8 + lane / 4;
                u32 q = block_column * SIDE + side + 8 * s + lane % 4 * 2 + e % 2;
                Word total = 0;
#pragma unroll
                for (int d = 0; d < D; ++d) total += (Word)sum[t][s][d][e] << (8 * d);
                if (r < (u32)n && q < (u32)m) {
                    u64 at = (u64)r * m + q;
                    if (parts > 1) atomicAdd(c + at, total);
                    else c[at] = more ? c[at] + total : total;
                }
            }
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define DIGIT_PRODUCT(D, Word)                                                                                     \
    KERNEL __launch_bounds__(256, 1) digits##D(const u8* a, const u8* b, Word* c, int n, int m, int from,          \
                                               int steps, int of, int more, int parts) {                           \
        digit_product<D, Word>(a, b, c, n, m, from, steps, of, more, parts);                                       \
    }
#else  // older devices take the integer units; the launching code never asks
#define DIGIT_PRODUCT(D, Word)                                                                                     \
    KERNEL digits##D(const u8* a, const u8* b, Word* c, int n, int m, int from, int steps, int of, int more,       \
                     int parts) {}
#endif

DIGIT_PRODUCT(4, u32)
DIGIT_PRODUCT(5, u64)
DIGIT_PRODUCT(6, u64)
DIGIT_PRODUCT(7, u64)
DIGIT_PRODUCT(8, u64)
