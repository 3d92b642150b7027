// Exact matrix products on the integer units: any device, any shape. c (batch, n, m) = a (batch, n, k) @ b (batch, k, m).
#include "common.cuh"

#define TILE 64   // rows and columns of a block's part of the result
#define DEPTH 16  // inner steps that lie in shared memory
#define EACH 4    // rows and columns of a thread's part: 16 x 16 threads

template <typename Word>
__device__ inline void product(const Word* a, const Word* b, Word* c, int n, int k, int m) {
    __shared__ Word left[DEPTH][TILE + 1], right[DEPTH][TILE];
    int row = blockIdx.y * TILE, column = blockIdx.x * TILE;
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    a += (u64)blockIdx.z * n * k;
    b += (u64)blockIdx.z * k * m;
    c += (u64)blockIdx.z * n * m;
    Word sum[EACH][EACH] = {};
    for (int start = 0; start < k; start += DEPTH) {
#pragma unroll
        for (int i = 0; i < TILE * DEPTH / 256; ++i) {
            int at = threadIdx.x + 256 * i;
            int r = row + at / DEPTH, p = start + at % DEPTH;
            left[at % DEPTH][at / DEPTH] = r < n && p < k ? a[(u64)r * k + p] : 0;
            int q = start + at / TILE, s = column + at % TILE;
            right[at / TILE][at % TILE] = q < k && s < m ? b[(u64)q * m + s] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int p = 0; p < DEPTH; ++p) {
            Word u[EACH], v[EACH];
#pragma unroll
            for (int i = 0; i < EACH; ++i) { u[i] = left[p][y + 16 * i]; v[i] = right[p][x + 16 * i]; }
#pragma unroll
            for (int i = 0; i < EACH; ++i)
#pragma unroll
                for (int j = 0; j < EACH; ++j) sum[i][j] += u[i] * v[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            int r = row + y + 16 * i, s = column + x + 16 * j;
            if (r < n && s < m) c[(u64)r * m + s] = sum[i][j];
        }
}

KERNEL integer64(const u64* a, const u64* b, u64* c, int n, int k, int m) { product<u64>(a, b, c, n, k, m); }
KERNEL integer32(const u32* a, const u32* b, u32* c, int n, int k, int m) { product<u32>(a, b, c, n, k, m); }
