// Exact kernels on 64-bit words for the GPU: the loops of numpy_.py, element for element.
// Compile without fused multiply-add (-fmad=false): the parties' public coefficients must agree to the last bit.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned char u8;

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define QUARTER(a, b, c, d)                 \
    a += b; d = ROTATE(d ^ a, 16);          \
    c += d; b = ROTATE(b ^ c, 12);          \
    a += b; d = ROTATE(d ^ a, 8);           \
    c += d; b = ROTATE(b ^ c, 7);

// ChaCha20 (RFC 8439), zero nonce: one thread makes one 64-byte block.
extern "C" __global__ void keystream(const u32* key, u32 first, u64 blocks, u32* out) {
    u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= blocks) return;
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
                     key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7],
                     first + (u32)index, 0u, 0u, 0u};
    u32 x[16];
    for (int i = 0; i < 16; ++i) x[i] = start[i];
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
    for (int i = 0; i < 16; ++i) out[index * 16 + i] = x[i] + start[i];
}

// c (batch, n, m) = a (batch, n, k) @ b (batch, k, m), one output an element, tiles of 16.
template <typename Word>
__device__ void product(const Word* a, const Word* b, Word* c, int n, int k, int m) {
    __shared__ Word left[16][17], right[16][17];
    int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    a += (u64)blockIdx.z * n * k;
    b += (u64)blockIdx.z * k * m;
    Word total = 0;
    for (int start = 0; start < k; start += 16) {
        int p = start + threadIdx.x, q = start + threadIdx.y;
        left[threadIdx.y][threadIdx.x] = row < n && p < k ? a[(u64)row * k + p] : 0;
        right[threadIdx.y][threadIdx.x] = q < k && column < m ? b[(u64)q * m + column] : 0;
        __syncthreads();
        for (int i = 0; i < 16; ++i) total += left[threadIdx.y][i] * right[i][threadIdx.x];
        __syncthreads();
    }
    if (row < n && column < m) c[(u64)blockIdx.z * n * m + (u64)row * m + column] = total;
}

extern "C" __global__ void matmul64(const u64* a, const u64* b, u64* c, int n, int k, int m) { product<u64>(a, b, c, n, k, m); }
extern "C" __global__ void matmul32(const u32* a, const u32* b, u32* c, int n, int k, int m) { product<u32>(a, b, c, n, k, m); }

__device__ u64 rounded(double x) { return (u64)(i64)((x + 6755399441055744.0) - 6755399441055744.0); }

// out (2 count, n): words of cos(k t), then sin(k t), by the three-term recurrence from c = cos t, s = sin t.
extern "C" __global__ void harmonics(const double* c, const double* s, u64 n, int count, double one, u64* out) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double c0 = 1.0, c1 = c[i], s0 = 0.0, s1 = s[i], twice = c[i] + c[i];
    for (int k = 0; k < count; ++k) {
        out[(u64)k * n + i] = rounded(c1 * one);
        out[(u64)(count + k) * n + i] = rounded(s1 * one);
        double next_c = twice * c1 - c0, next_s = twice * s1 - s0;
        c0 = c1; s0 = s1; c1 = next_c; s1 = next_s;
    }
}

// out (functions, n): one party's sum over the harmonics; cos, sin (functions, count) scaled, words (2 count, n).
extern "C" __global__ void series(const double* c, const double* s, u64 n, int functions, int count, const double* cos,
                                  const double* sin, const u64* words, u64* out) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double c0 = 1.0, c1 = c[i], s0 = 0.0, s1 = s[i], twice = c[i] + c[i];
    for (int k = 0; k < count; ++k) {
        u64 wc = words[(u64)k * n + i], ws = words[(u64)(count + k) * n + i];
        for (int f = 0; f < functions; ++f) {
            double a = cos[f * count + k], b = sin[f * count + k];
            out[(u64)f * n + i] += rounded(a * c1 + b * s1) * wc + rounded(a * s1 - b * c1) * ws;
        }
        double next_c = twice * c1 - c0, next_s = twice * s1 - s0;
        c0 = c1; s0 = s1; c1 = next_c; s1 = next_s;
    }
}

// Bit v of each row of size bytes, and the parity of the bits above it.
extern "C" __global__ void look_up(const u8* tables, const u64* v, u64 n, int size, u8* equal, u8* less) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int at = (int)(v[i] >> 3), low = (int)(v[i] & 7);
    u32 own = tables[i * size + at], folded = own >> (low + 1);
    equal[i] = (u8)((own >> low) & 1);
    for (int j = at + 1; j < size; ++j) folded ^= tables[i * size + j];
    less[i] = (u8)(__popc(folded) & 1);
}

// One party's share of z >> shift from the opened u.
extern "C" __global__ void truncated(const u64* u, const u64* shifted, const u64* msb, u64 n, int shift, int window,
                                     int first, u64* out) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 wrap = window - shift < 64 ? ((1ull - (u[i] >> (window - 1))) << (window - shift)) * msb[i] : 0;
    out[i] = wrap - shifted[i] + (first ? (u[i] >> shift) - (1ull << (window - 2 - shift)) : 0);
}
