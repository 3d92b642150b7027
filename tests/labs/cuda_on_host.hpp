// Runs CUDA kernels on the host, for tests: the very source that the GPU runs, thread by thread.
//
// A block's threads are fibers of one host thread. They take turns at __syncthreads() and at instructions that a warp
// executes together; the order in which they run can be turned round or shuffled, so that a missing barrier shows.
// Asynchronous copies land when they are awaited, not before. A barrier that only some threads reach is an error.
#pragma once
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <deque>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __popc __builtin_popcount
#define DYNAMIC_SHARED(name) uint8_t* name = on_host::pool
#define SECFORMER_TENSOR_CUH  // the warp's instructions are below

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace on_host {

const int STACK = 1 << 16;
enum State { RUNNING, AT_BLOCK, AT_WARP, DONE };
struct Copy { uint8_t* to; const uint8_t* from; };
struct Deposit { const void* what; uint32_t a[4], b[2]; const uint8_t* row; };

struct Fiber {
    ucontext_t context;  // enters the fiber; from then on it jumps, which takes no system call
    jmp_buf at;
    bool entered;
    uint8_t* stack = nullptr;  // kept for the next launch
    State state;
    Index index;
    unsigned calls;                       // of warp instructions so far
    std::vector<Copy> open;               // copies since the last commit
    std::deque<std::vector<Copy>> groups;  // committed, not yet awaited
};

static ucontext_t outside;
static jmp_buf scheduler;
static std::vector<Fiber> fibers;
static Fiber* self;
static uint8_t* pool;
static std::vector<Deposit> deposits[2];  // a thread is at most one warp instruction ahead of its warp
static void (*body)(void*);
static void* arguments;
static const char* failure;

__attribute__((noinline)) inline void wait(State state) {
    self->state = state;
    if (!_setjmp(self->at)) _longjmp(scheduler, 1);
    threadIdx = self->index;
}

inline void start() {
    body(arguments);
    self->state = DONE;
    _longjmp(scheduler, 1);
}

__attribute__((noinline)) inline void resume() {
    threadIdx = self->index;
    if (_setjmp(scheduler)) return;
    if (self->entered) _longjmp(self->at, 1);
    self->entered = true;
    swapcontext(&outside, &self->context);
}

// Leaves this thread's operands and waits for those of its warp; returns the warp's.
inline const Deposit* together(const Deposit& mine) {
    unsigned at = self - fibers.data();
    std::vector<Deposit>& all = deposits[self->calls++ % 2];
    all[at] = mine;
    wait(AT_WARP);
    const Deposit* warp = &all[at / 32 * 32];
    for (int i = 0; i < 32; ++i)
        if (warp[i].what != mine.what) failure = "threads of a warp execute different warp instructions";
    return warp;
}

inline bool release(size_t from, size_t to, State state) {
    for (size_t i = from; i < to; ++i)
        if (fibers[i].state != state) return false;
    for (size_t i = from; i < to; ++i) fibers[i].state = RUNNING;
    return true;
}

inline void run_block(int order) {
    size_t n = fibers.size();
    uint32_t random = 12345;
    for (Fiber& f : fibers) {
        f.state = RUNNING;
        f.entered = false;
        f.calls = 0;
        f.open.clear();
        f.groups.clear();
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack;
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        makecontext(&f.context, start, 0);
    }
    std::vector<size_t> turn(n);
    for (size_t i = 0; i < n; ++i) turn[i] = order == 1 ? n - 1 - i : i;
    for (size_t left = n; left;) {
        if (order == 2)
            for (size_t i = n - 1; i > 0; --i) {
                random = random * 1664525u + 1013904223u;
                std::swap(turn[i], turn[(random >> 8) % (i + 1)]);
            }
        bool moved = false;
        for (size_t i : turn) {
            if (fibers[i].state != RUNNING) continue;
            moved = true;
            self = &fibers[i];
            resume();
            if (self->state == DONE) --left;
        }
        for (size_t w = 0; w < n; w += 32) moved |= release(w, w + 32 < n ? w + 32 : n, AT_WARP);
        if (left) moved |= release(0, n, AT_BLOCK);
        if (!moved) {
            failure = "a barrier waits for threads that never come";
            return;
        }
        if (failure) return;
    }
}

// Runs the grid; returns what went wrong, or null.
inline const char* run(Index grid, Index block, uint32_t shared, int order, void (*kernel)(void*), void* given) {
    std::vector<uint8_t> memory(shared + 256, 0xA5);
    pool = (uint8_t*)(((uintptr_t)memory.data() + 127) / 128 * 128);
    body = kernel;
    arguments = given;
    failure = nullptr;
    gridDim = grid;
    blockDim = block;
    size_t threads = (size_t)block.x * block.y * block.z;
    for (size_t i = threads; i < fibers.size(); ++i) delete[] fibers[i].stack;
    fibers.resize(threads);
    for (auto& d : deposits) d.resize(fibers.size() + 31);
    for (size_t i = 0; i < fibers.size(); ++i) {
        if (!fibers[i].stack) fibers[i].stack = new uint8_t[STACK];
        fibers[i].index = {(unsigned)(i % block.x), (unsigned)(i / block.x % block.y),
                           (unsigned)(i / block.x / block.y)};
    }
    size_t blocks = (size_t)grid.x * grid.y * grid.z;
    for (size_t i = 0; i < blocks && !failure; ++i) {
        size_t at = order == 1 ? blocks - 1 - i : i;
        blockIdx = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y)};
        memset(pool, 0xA5, shared);  // nothing from the block before
        run_block(order);
    }
    for (uint8_t* end = pool + shared; end < memory.data() + memory.size(); ++end)
        if (*end != 0xA5 && !failure) failure = "written beyond the shared memory that the launch asked for";
    return failure;
}

}  // namespace on_host

inline void __syncthreads() { on_host::wait(on_host::AT_BLOCK); }
template <typename Word>
inline void atomicAdd(Word* to, Word value) { *to += value; }
inline void atomicXor(unsigned long long* to, unsigned long long value) { *to ^= value; }
inline void __trap() { on_host::failure = "the kernel trapped"; }

// ---- the warp's instructions, with the fragment layouts of the PTX manual (mma.m16n8k32, ldmatrix.x4, cp.async) ----

inline void multiply_bytes(uint32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    on_host::Deposit mine = {(const void*)&__func__, {a[0], a[1], a[2], a[3]}, {b0, b1}, nullptr};
    const on_host::Deposit* warp = on_host::together(mine);
    unsigned lane = (on_host::self - on_host::fibers.data()) % 32;
    for (int e = 0; e < 4; ++e) {
        unsigned row = lane / 4 + (e >= 2 ? 8 : 0), column = lane % 4 * 2 + e % 2;
        for (unsigned k = 0; k < 32; ++k) {
            // a: register holds four inner steps; +1 for rows from 8 on, +2 for steps from 16 on
            uint32_t left = warp[row % 8 * 4 + k % 16 / 4].a[(row >= 8) + 2 * (k >= 16)] >> (8 * (k % 4));
            uint32_t right = warp[column * 4 + k % 16 / 4].b[k >= 16] >> (8 * (k % 4));
            c[e] += (left & 255) * (right & 255);
        }
    }
}

inline void load_matrices(uint32_t (&x)[4], const uint8_t* row) {
    on_host::Deposit mine = {(const void*)&__func__, {}, {}, row};
    if ((uintptr_t)row % 16) on_host::failure = "a matrix row must start at a multiple of 16 bytes";
    const on_host::Deposit* warp = on_host::together(mine);
    unsigned lane = (on_host::self - on_host::fibers.data()) % 32;
    for (unsigned j = 0; j < 4; ++j) memcpy(&x[j], warp[8 * j + lane / 4].row + lane % 4 * 4, 4);
}

inline void copy_async(uint8_t* to, const uint8_t* from) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) on_host::failure = "an asynchronous copy must be aligned to 16 bytes";
    on_host::self->open.push_back({to, from});
}

inline void commit_copies() {
    on_host::self->groups.push_back(on_host::self->open);
    on_host::self->open.clear();
}

template <int left>
inline void await_copies() {
    auto& groups = on_host::self->groups;
    for (; groups.size() > (size_t)left; groups.pop_front())
        for (const on_host::Copy& c : groups.front()) memcpy(c.to, c.from, 16);
}
