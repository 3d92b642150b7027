// The instructions of compute capability 8.0 that CUDA C++ has no names for. One warp's threads call them together.
// A test on the host puts its own versions in place of this file.
#ifndef SECFORMER_TENSOR_CUH
#define SECFORMER_TENSOR_CUH

// c (16 x 8) += a (16 x 32, rows of bytes) @ b (32 x 8, columns of bytes), sums mod 2^32.
__device__ inline void multiply_bytes(u32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 16-byte matrices from shared memory: thread t names row t % 8 of matrix t / 8, and gets bytes
// 4 (t % 4) .. + 3 of row t / 4 of each.
__device__ inline void load_matrices(u32 (&x)[4], const u8* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"((u32)__cvta_generic_to_shared(row)) : "memory");
}

// 16 bytes from device memory to shared memory, on the way while the thread goes on.
__device__ inline void copy_async(u8* to, const u8* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :: "r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the latest `left` groups of this thread's copies have arrived.
template <int left>
__device__ inline void await_copies() { asm volatile("cp.async.wait_group %0;" :: "n"(left) : "memory"); }

#endif
