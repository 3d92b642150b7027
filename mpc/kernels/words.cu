// Words on the wire and after it: packing, opening, truncation. One thread an element, one pass over memory each.
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

// u = mine + theirs (or xor) mod 2^bits, theirs as it came from the peer.
KERNEL opened(const u64* mine, const u8* payload, u64 n, int bits, int exclusive, u64* u) {
    u64 i = element();
    if (i >= n) return;
    u64 theirs = unpacked(payload, n, (bits + 7) / 8, i);
    u[i] = (exclusive ? mine[i] ^ theirs : mine[i] + theirs) & low_bits(bits);
}

// One party's share of z >> shift from the opened u = z + r + 2^(window-2) mod 2^window.
KERNEL truncated(const u64* u, const u64* shifted, const u64* msb, u64 n, int shift, int window, int first, u64* out) {
    u64 i = element();
    if (i >= n) return;
    u64 wrap = window - shift < 64 ? ((1ull - (u[i] >> (window - 1))) << (window - shift)) * msb[i] : 0;
    out[i] = wrap - shifted[i] + (first ? (u[i] >> shift) - (1ull << (window - 2 - shift)) : 0);
}
