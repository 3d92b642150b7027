// Element-wise products: what a party adds up, and the terms that the dealer makes (see `Hadamard`). One thread per
// element. Operands take steps of their own from row to row and from column to column, so that broadcasting copies
// nothing. `parts` says which terms there are beside the product: 1 left, 2 right, 4 both.
#include "common.cuh"

// All bits set where a lifted operand's wrap counts: where the top bit of u is 0.
__device__ inline u64 counts(u64 u, int window) { return (u >> (window - 1)) - 1; }

// What was added before an opening.
__device__ inline u64 offset(int window) { return window ? 1ull << (window - 2) : 0; }

// An operand's share: what it lacks, 1 the opened u (at the first party), 2 the wraps that u's top bit names, is added.
__device__ inline u64 whole(const u64* share, const u64* u, const u64* wraps, u64 n, u64 at, int window, int lacks,
                            int first) {
    u64 found = share[at];
    if (lacks & 1 && first) found += u[at];
    if (lacks & 2) found += wraps[(u[at] >> (window - 1) ? n : 0) + at] << window;
    return found;
}

KERNEL multiplied(u64 n, u64 columns, u64 x_row, u64 x_column, u64 y_row, u64 y_column, const u64* u, const u64* share,
                  const u64* wraps, u64 size, int window, int lacks, const u64* v, const u64* other,
                  const u64* other_wraps, u64 other_size, int other_window, int other_lacks, int first, int parts,
                  const u64* product, const u64* left, const u64* right, const u64* both, u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 row = i / columns, column = i % columns;
    u64 x = row * x_row + column * x_column, y = row * y_row + column * y_column;
    u64 e = u[x] - offset(window), f = v[y] - offset(other_window);
    u64 own = whole(share, u, wraps, size, x, window, lacks, first);
    u64 their = whole(other, v, other_wraps, other_size, y, other_window, other_lacks, first);
    u64 total = e * their + f * (own - (first ? e : 0)) + product[i];
    if (parts & 1) total += (left[i] << window) & counts(u[x], window);
    if (parts & 2) total += (right[i] << other_window) & counts(v[y], other_window);
    if (parts & 4) total += (both[i] << (window + other_window)) & counts(u[x], window) & counts(v[y], other_window);
    out[i] = total;
}

// a of a mask, and m.
__device__ inline u64 masked_by(u64 r, int window) { return window ? 0 - (r & low_bits(window)) : r; }
__device__ inline u64 top(u64 r, int window) { return window ? (r >> (window - 1)) & 1 : 0; }

KERNEL product_terms(u64 n, u64 columns, u64 x_row, u64 x_column, u64 y_row, u64 y_column, const u64* r, int window,
                     const u64* s, int other_window, int square, int parts,
                     u64* product, u64* left, u64* right, u64* both) {
    u64 i = element();
    if (i >= n) return;
    u64 row = i / columns, column = i % columns;
    u64 x = r[row * x_row + column * x_column], y = s[row * y_row + column * y_column];
    u64 a = masked_by(x, window), b = masked_by(y, other_window);
    product[i] = a * b;
    if (parts & 1) left[i] = top(x, window) * (square ? a + a + (1ull << window) : b);
    if (parts & 2) right[i] = a * top(y, other_window);
    if (parts & 4) both[i] = top(x, window) * top(y, other_window);
}
