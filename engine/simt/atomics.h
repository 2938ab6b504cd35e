// Atomic operations: plain ones, as no two threads run at the same time. Each returns what was there before. They take
// the types that CUDA's take: std::uint64_t, which is unsigned long, is not among them.
#pragma once

#include <type_traits>

#include "executor.h"

namespace samg::simt::detail {

template <class T, class... Allowed>
inline constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);

/// Replaces what is at the address with what `replace` makes of it.
template <class T, class Replace>
T update(T* address, Replace replace) {
    static_assert(is_one_of<T, int, unsigned, unsigned long long, float, double>);
    check_aligned(address, sizeof(T));
    const T old = *address;
    *address = replace(old);
    return old;
}

/// Keeps T from being deduced from an argument: as in CUDA, the address alone says what type it is.
template <class T>
using Value = typename std::enable_if<true, T>::type;

}  // namespace samg::simt::detail

template <class T>
T atomicAdd(T* address, samg::simt::detail::Value<T> value) {
    return samg::simt::detail::update(address, [=](T old) { return old + value; });
}

template <class T>
T atomicExch(T* address, samg::simt::detail::Value<T> value) {
    static_assert(!std::is_same_v<T, double>);
    return samg::simt::detail::update(address, [=](T) { return value; });
}

template <class T>
T atomicMax(T* address, samg::simt::detail::Value<T> value) {
    static_assert(std::is_integral_v<T>);
    return samg::simt::detail::update(address, [=](T old) { return old < value ? value : old; });
}

template <class T>
T atomicMin(T* address, samg::simt::detail::Value<T> value) {
    static_assert(std::is_integral_v<T>);
    return samg::simt::detail::update(address, [=](T old) { return value < old ? value : old; });
}

template <class T>
T atomicOr(T* address, samg::simt::detail::Value<T> value) {
    static_assert(std::is_integral_v<T>);
    return samg::simt::detail::update(address, [=](T old) { return old | value; });
}

template <class T>
T atomicAnd(T* address, samg::simt::detail::Value<T> value) {
    static_assert(std::is_integral_v<T>);
    return samg::simt::detail::update(address, [=](T old) { return old & value; });
}

template <class T>
T atomicCAS(T* address, samg::simt::detail::Value<T> expected, samg::simt::detail::Value<T> value) {
    static_assert(std::is_integral_v<T>);
    return samg::simt::detail::update(address, [=](T old) { return old == expected ? value : old; });
}

/// Counts up, and from `last` back to 0.
inline unsigned atomicInc(unsigned* address, unsigned last) {
    return samg::simt::detail::update(address, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}
