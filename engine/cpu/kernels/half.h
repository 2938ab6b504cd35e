// IEEE half precision, stored as its bits.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace samg::cpu::SAMG_LEVEL {

/// A half precision number in memory.
struct Half {
    uint16_t bits;
};

static inline float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float to_float(float value) { return value; }

static inline float to_float(Half half) {
    const uint32_t magnitude = half.bits & 0x7fffu;
    // Scaling by 2^112 moves the exponent to where float has it, and makes subnormal numbers normal ones.
    uint32_t bits = to_bits(from_bits(magnitude << 13) * from_bits(0x77800000u));
    bits |= magnitude >= 0x7c00u ? 0x7f800000u : 0u;  // infinity and NaN
    return from_bits(bits | (half.bits & 0x8000u) << 16);
}

/// Rounds to nearest, ties to even.
static inline Half to_half(float value) {
    const uint32_t sign = to_bits(value) & 0x80000000u;
    const uint32_t magnitude = to_bits(value) ^ sign;
    uint32_t bits;
    if (magnitude >= 0x47800000u) {  // 65,536 and more
        bits = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // subnormal: adding 1/2 rounds where half's last bit is
        bits = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        bits = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    }
    return {static_cast<uint16_t>(bits | sign >> 16)};
}

static inline void to_floats(const Half* halves, float* out, int count) {
    int i = 0;
#ifdef __F16C__
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i))));
    }
#endif
    for (; i < count; ++i) out[i] = to_float(halves[i]);
}

static inline void to_halves(const float* values, Half* out, int count) {
    int i = 0;
#ifdef __F16C__
    for (; i + 8 <= count; i += 8) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    for (; i < count; ++i) out[i] = to_half(values[i]);
}

/// Returns `count` numbers as float: themselves, or converted into `buffer`.
static inline const float* as_floats(const float* values, float*, int) { return values; }

static inline const float* as_floats(const Half* values, float* buffer, int count) {
    to_floats(values, buffer, count);
    return buffer;
}

}  // namespace samg::cpu::SAMG_LEVEL
