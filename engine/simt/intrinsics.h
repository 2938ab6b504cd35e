// CUDA's arithmetic that C++ has no name for, or has it elsewhere than in the global namespace.
#pragma once

#include <math.h>  // not <cmath>: this one puts sqrtf, fmaxf, isnan and so on into the global namespace

#include <cstring>
#include <type_traits>

namespace samg::simt::detail {

template <class To, class From>
To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace samg::simt::detail

inline unsigned __float_as_uint(float x) { return samg::simt::detail::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return samg::simt::detail::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return samg::simt::detail::bit_cast<float>(x); }
inline float __int_as_float(int x) { return samg::simt::detail::bit_cast<float>(x); }

// CUDA never fuses these. The host's compiler does not either, unless it is both allowed to use FMA instructions and to
// contract: compile kernels with -ffp-contract=off where that matters.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }  // NaN becomes 0

inline int __float2int_rn(float a) { return static_cast<int>(rintf(a)); }
inline int __float2int_rd(float a) { return static_cast<int>(floorf(a)); }

/// The device's is up to 2 ulp from this. A template, as the C library of some hosts has a function of that name.
template <class = void>
float rsqrtf(float a) {
    return 1.0f / sqrtf(a);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
T __ldg(const T* address) {
    return *address;
}

// Of two different types CUDA's take the common one; these refuse.
template <class T, class = std::enable_if_t<std::is_integral_v<T>>>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <class T, class = std::enable_if_t<std::is_integral_v<T>>>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
