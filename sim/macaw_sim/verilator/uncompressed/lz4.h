// Stands in for the header of LZ4 where that is not installed: what Verilator's FST writer calls.
// A block of literals only, which is LZ4's format, with nothing compressed.

#pragma once

#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
    if (capacity < LZ4_compressBound(size)) return 0;
    auto* out = reinterpret_cast<unsigned char*>(target);
    *out++ = (size < 15 ? size : 15) << 4;
    if (size >= 15) {
        int rest = size - 15;
        for (; rest >= 255; rest -= 255) *out++ = 255;
        *out++ = rest;
    }
    memcpy(out, source, size);
    return out - reinterpret_cast<unsigned char*>(target) + size;
}
