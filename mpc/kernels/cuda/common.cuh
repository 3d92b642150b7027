// What every kernel file shares: names of types, the element that a thread works on, unaligned access.
// Compile without fused multiply-add (-fmad=false): the parties' public coefficients must agree to the last bit.
#ifndef SECFORMER_COMMON_CUH
#define SECFORMER_COMMON_CUH

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int i32;
typedef long long i64;

#define KERNEL extern "C" __global__ void

// Shared memory whose size the launch states.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) u8 name[]
#endif

__device__ inline u64 element() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline u64 low_bits(int bits) { return bits < 64 ? (1ull << bits) - 1 : ~0ull; }

// The nearest integer (ties to even) as a word: adding 1.5 * 2^52 drops the fraction.
__device__ inline u64 rounded(double x) { return (u64)(i64)((x + 6755399441055744.0) - 6755399441055744.0); }

// Numbers inside a payload start wherever the message put them.
template <typename T>
__device__ inline T load(const u8* at) {
    if ((u64)at % sizeof(T) == 0) return *(const T*)at;
    T value = 0;
    for (u32 i = 0; i < sizeof(T); ++i) value |= (T)((T)at[i] << (8 * i));
    return value;
}

template <typename T>
__device__ inline void store(u8* at, T value) {
    if ((u64)at % sizeof(T) == 0) { *(T*)at = value; return; }
    for (u32 i = 0; i < sizeof(T); ++i) at[i] = (u8)(value >> (8 * i));
}

// A payload holds n words of `bytes` bytes as planes: all the low four (or eight) bytes, then two, then one.
__device__ inline u64 unpacked(const u8* payload, u64 n, int bytes, u64 i) {
    if (bytes == 8) return load<u64>(payload + 8 * i);
    u64 word = 0;
    int shift = 0;
    if (bytes & 4) { word = load<u32>(payload + 4 * i); payload += 4 * n; shift = 32; }
    if (bytes & 2) { word |= (u64)load<u16>(payload + 2 * i) << shift; payload += 2 * n; shift += 16; }
    if (bytes & 1) word |= (u64)payload[i] << shift;
    return word;
}

// Writes one word of a payload, wherever that starts.
__device__ inline void pack_to(u8* payload, u64 n, int bytes, u64 i, u64 word) {
    if (bytes == 8) { store<u64>(payload + 8 * i, word); return; }
    if (bytes & 4) { store<u32>(payload + 4 * i, (u32)word); payload += 4 * n; word >>= 32; }
    if (bytes & 2) { store<u16>(payload + 2 * i, (u16)word); payload += 2 * n; word >>= 16; }
    if (bytes & 1) payload[i] = (u8)word;
}

// For launches that take up to sixteen jobs, each with blocks of its own, one job's behind the other's.
#define JOBS(what)                                                                                            \
    what(0), what(1), what(2), what(3), what(4), what(5), what(6), what(7), what(8), what(9), what(10),       \
        what(11), what(12), what(13), what(14), what(15)
#define EACH_JOB(what)                                                                                        \
    what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7) what(8) what(9) what(10) what(11)         \
        what(12) what(13) what(14) what(15)

// Whether this block is one of a job's `own`; `block`, which starts as the block's number, is then its number there.
__device__ inline bool takes(u32& block, bool& found, u64 own) {
    if (found) return false;
    if (block < own) return found = true;
    block -= (u32)own;
    return false;
}

#endif
