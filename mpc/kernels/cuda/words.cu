// Words on the wire and after it: packing, opening, lifting. One thread per element, one pass over memory each.
#include "common.cuh"

// payload = the low bits of n words in whole bytes. Words are 64 or 32 bits wide.
KERNEL pack(const u64* words, u64 n, int bits, u8* payload) {
    u64 i = element();
    if (i < n) pack_to(payload, n, (bits + 7) / 8, i, words[i] & low_bits(bits));
}

KERNEL pack_narrow(const u32* words, u64 n, int bits, u8* payload) {
    u64 i = element();
    if (i < n) pack_to(payload, n, (bits + 7) / 8, i, words[i] & low_bits(bits));
}

KERNEL unpack(const u8* payload, u64 n, int bits, u64* words) {
    u64 i = element();
    if (i < n) words[i] = unpacked(payload, n, (bits + 7) / 8, i) & low_bits(bits);
}

#define BLOCK 256
#define RECEIVED(j) u64 from##j, u64 n##j, int bits##j, int raw##j, u64 at##j

// Several fields of one payload: words, or bytes if `raw`, each from a place of its own to a place of its own.
KERNEL unpacked_all(int count, JOBS(RECEIVED), const u8* payload, u8* out) {
    u32 block = blockIdx.x;
    bool found = false, raw = false;
    u64 n = 0, from = 0, at = 0;
    int bits = 0;
#define TAKE(j)                                                             \
    if (takes(block, found, j < count ? (n##j + BLOCK - 1) / BLOCK : 0)) {  \
        n = n##j; bits = bits##j; raw = raw##j; from = from##j; at = at##j; \
    }
    EACH_JOB(TAKE)
#undef TAKE
    u64 i = (u64)block * BLOCK + threadIdx.x;
    if (i >= n) return;
    if (raw) out[at + i] = payload[from + i];
    else ((u64*)(out + at))[i] = unpacked(payload + from, n, (bits + 7) / 8, i) & low_bits(bits);
}

// u = mine + theirs (or xor) mod 2^bits, theirs as it came from the peer.
KERNEL opened(const u64* mine, const u8* payload, u64 n, int bits, int exclusive, u64* u) {
    u64 i = element();
    if (i >= n) return;
    u64 theirs = unpacked(payload, n, (bits + 7) / 8, i);
    u[i] = (exclusive ? mine[i] ^ theirs : mine[i] + theirs) & low_bits(bits);
}

#define OPENED(j) u64 from##j, u64 n##j, int bits##j, u64 at##j

// The same for several items, from both parties' payloads, to places of their own.
KERNEL unseal(int count, JOBS(OPENED), const u8* mine, const u8* theirs, int exclusive, u8* out) {
    u32 block = blockIdx.x;
    bool found = false;
    u64 n = 0, from = 0, at = 0;
    int bits = 0;
#define TAKE(j)                                                             \
    if (takes(block, found, j < count ? (n##j + BLOCK - 1) / BLOCK : 0)) {  \
        n = n##j; bits = bits##j; from = from##j; at = at##j;               \
    }
    EACH_JOB(TAKE)
#undef TAKE
    u64 i = (u64)block * BLOCK + threadIdx.x;
    if (i >= n) return;
    u64 x = unpacked(mine + from, n, (bits + 7) / 8, i), y = unpacked(theirs + from, n, (bits + 7) / 8, i);
    ((u64*)(out + at))[i] = (exclusive ? x ^ y : x + y) & low_bits(bits);
}

// out = a 2^up plus, or minus, b 2^more. Operands take steps of their own from row to row and from column to column.
KERNEL added(u64 n, u64 columns, u64 a_row, u64 a_column, u64 b_row, u64 b_column, const u64* a, int up, const u64* b,
             int more, int minus, u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 row = i / columns, column = i % columns;
    u64 x = a[row * a_row + column * a_column] << up, y = b[row * b_row + column * b_column] << more;
    out[i] = minus ? x - y : x + y;
}

// What a mask's lift needs of the sum r of the parties' words: its carry, and that plus its highest bit, first.
KERNEL wraps(const u64* r, u64 n, int window, u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 carry = r[i] >> window;
    out[i] = carry + ((r[i] >> (window - 1)) & 1);
    out[n + i] = carry;
}

// One party's share of what was opened as u: the rest, u itself at one party, and the wraps that u's top bit names.
KERNEL lifted(const u64* u, const u64* rest, const u64* wraps, u64 n, int window, int first, int wrapped, u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 wrap = wrapped ? wraps[(u[i] >> (window - 1) ? n : 0) + i] << window : 0;
    out[i] = rest[i] + (first ? u[i] : 0) + wrap;
}

// Minus the words' negatives without their lowest bits.
KERNEL rounded_up(const u64* words, u64 n, int bits, u64* out) {
    u64 i = element();
    if (i < n) out[i] = 0 - ((0 - words[i]) >> bits);
}
