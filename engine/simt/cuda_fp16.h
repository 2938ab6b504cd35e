// Stands in for CUDA's header of the same name: half precision numbers, which are only stored and converted.
#pragma once

#include "intrinsics.h"

struct __half {
    unsigned short bits;
};

inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }

inline float __half2float(__half h) {
    const unsigned sign = (h.bits & 0x8000u) << 16;
    const unsigned rest = (h.bits & 0x7fffu) << 13;  // exponent and mantissa, where a float has them
    if (rest < 0x00800000) {                         // zero and subnormals: a multiple of 2^-24
        const float magnitude = static_cast<float>(rest >> 13) * 0x1p-24f;
        return __uint_as_float(__float_as_uint(magnitude) | sign);
    }
    const unsigned bias = rest >= 0x0f800000 ? 255 - 31 : 127 - 15;  // infinity and NaN keep the largest exponent
    return __uint_as_float((rest + (bias << 23)) | sign);
}

/// Rounds to nearest, ties to even. NaN becomes 0x7fff, as on the device.
inline __half __float2half_rn(float value) {
    const unsigned sign = __float_as_uint(value) >> 31 << 15;
    const unsigned rest = __float_as_uint(value) & 0x7fffffff;
    unsigned bits = 0;
    if (rest > 0x7f800000) return {0x7fff};
    if (rest >= 0x47800000) {  // 2^16 and more
        bits = 0x7c00;
    } else if (rest < 0x38800000) {  // below 2^-14: the sum's last bit is worth 2^-24, so that the addition rounds
        bits = __float_as_uint(__uint_as_float(rest) + 0.5f) - __float_as_uint(0.5f);
    } else {  // what rounds up beyond the largest number carries into the exponent and makes infinity
        bits = (rest - (127u - 15u) * (1u << 23) + 0x0fff + (rest >> 13 & 1)) >> 13;
    }
    return {static_cast<unsigned short>(bits | sign)};
}
inline __half __float2half(float value) { return __float2half_rn(value); }
