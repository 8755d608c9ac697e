// Stands in for the header of zlib where that is not installed: what Verilator's FST writer calls.
// Stored deflate blocks in a zlib stream (RFC 1950, RFC 1951), with nothing compressed.

#pragma once

#include <cstring>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;

constexpr int Z_OK = 0, Z_BUF_ERROR = -5;

inline uLong compressBound(uLong size) { return size + size / 65535 * 5 + 16; }

inline int compress2(Bytef* target, uLongf* capacity, const Bytef* source, uLong size, int) {
    if (*capacity < compressBound(size)) return Z_BUF_ERROR;
    Bytef* out = target;
    *out++ = 0x78, *out++ = 0x01;
    uLong a = 1, b = 0;  // Adler-32
    for (uLong i = 0; i < size; ++i) a = (a + source[i]) % 65521, b = (b + a) % 65521;
    do {
        uLong block = size < 65535 ? size : 65535;
        size -= block;
        *out++ = size == 0;
        *out++ = block, *out++ = block >> 8, *out++ = ~block, *out++ = ~block >> 8;
        memcpy(out, source, block);
        out += block, source += block;
    } while (size);
    *out++ = b >> 8, *out++ = b, *out++ = a >> 8, *out++ = a;
    *capacity = out - target;
    return Z_OK;
}
