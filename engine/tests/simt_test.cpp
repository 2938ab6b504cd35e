// The executor that runs kernels on the host: that it runs them as CUDA would, and finds the faults it is there for.
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "simt/executor.h"

using samg::simt::launch;
using samg::simt::Order;
using samg::simt::set_order;

namespace {

constexpr unsigned full = 0xffffffff;

/// Calls the test in all orders, some of them shuffled, and leaves the first one behind.
template <class Test>
void in_all_orders(Test test) {
    for (const Order order : {Order::backward, Order::shuffled, Order::forward}) {
        for (std::uint64_t seed = 0; seed < (order == Order::shuffled ? 5 : 1); ++seed) {
            CAPTURE(static_cast<int>(order));
            CAPTURE(seed);
            set_order(order, seed);
            test();
        }
    }
}

/// What the error says that the call ends with; nothing if there is none.
template <class Call>
std::string message(Call call) {
    try {
        call();
    } catch (const std::logic_error& error) {
        return error.what();
    }
    return {};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

__device__ __forceinline__ float warp_sum(float value) {
    for (int offset = warpSize / 2; offset > 0; offset /= 2) value += __shfl_down_sync(full, value, unsigned(offset));
    return value;
}

/// Sums by warps, then the warps' sums in the first one.
__global__ void __launch_bounds__(256) block_sum(const float* __restrict__ in, float* __restrict__ out) {
    __shared__ float sums[8];
    const unsigned lane = threadIdx.x % 32;
    const float sum = warp_sum(__ldg(in + blockIdx.x * blockDim.x + threadIdx.x));
    if (lane == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        const float total = warp_sum(lane < blockDim.x / 32 ? sums[lane] : 0.0f);
        if (lane == 0) out[blockIdx.x] = total;
    }
    __syncthreads();
}

/// The same by a tree in shared memory; `Barrier` false leaves out what it needs.
template <bool Barrier>
__global__ void tree_sum(const float* in, float* out) {
    __shared__ float part[128];
    part[threadIdx.x] = in[threadIdx.x];
    if (Barrier) __syncthreads();
    for (unsigned reach = blockDim.x / 2; reach > 0; reach /= 2) {
        if (threadIdx.x < reach) part[threadIdx.x] += part[threadIdx.x + reach];
        if (Barrier) __syncthreads();
    }
    if (threadIdx.x == 0) *out = part[0];
}

std::vector<float> counting(std::size_t n) {
    std::vector<float> values(n);
    std::iota(values.begin(), values.end(), 1.0f);
    return values;
}

}  // namespace

TEST_CASE("block reductions are the same in all orders") {
    const std::vector<float> in = counting(3 * 256);
    in_all_orders([&] {
        std::vector<float> out(3);
        launch(block_sum, 3, 256, in.data(), out.data());
        CHECK(out == std::vector<float>{32896.0f, 98432.0f, 163968.0f});
        float sum = 0;
        launch(tree_sum<true>, 1, 128, in.data(), &sum);
        CHECK(sum == 8256.0f);
    });
}

TEST_CASE("a missing barrier shows as results that depend on the order") {
    const std::vector<float> in = counting(128);
    const std::vector<float> zeros(128);
    std::vector<float> sums;
    for (const Order order : {Order::forward, Order::backward}) {
        float sum = 0;
        set_order(order);
        launch(tree_sum<false>, 1, 128, zeros.data(), &sum);  // in shared memory, nothing is left from before
        launch(tree_sum<false>, 1, 128, in.data(), &sum);
        sums.push_back(sum);
    }
    set_order(Order::forward);
    CHECK(sums[0] != sums[1]);
}

namespace {

__global__ void half_at_barrier() {
    if (threadIdx.x < 16) __syncthreads();
}

__global__ void two_barriers() {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void barrier_and_warp() {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncwarp();
    }
}

__global__ void early_exit(unsigned n) {
    if (threadIdx.x >= n) return;
    __syncwarp();
}

__global__ void different_masks() { __syncwarp(threadIdx.x < 16 ? 0x0000ffffu : 0xffffffffu); }

__global__ void not_in_mask() { __syncwarp(1); }

__global__ void width_of_three(int* out) { *out = __shfl_sync(full, 1, 0, 3); }

}  // namespace

TEST_CASE("a barrier that some threads never reach is an error that names them") {
    in_all_orders([] {
        const std::string text = message([] { launch(half_at_barrier, dim3(2, 1), 64); });
        CHECK(contains(text, ",0,0): thread (0,0,0) waits at __syncthreads ("));
        CHECK(contains(text, "simt_test.cpp:"));
        CHECK(contains(text, "for thread (16,0,0), which has exited"));

        CHECK(contains(message([] { launch(two_barriers, 1, 32); }),
                       "for thread (16,0,0), which waits at __syncthreads"));
        CHECK(contains(message([] { launch(barrier_and_warp, 1, 32); }),
                       "for thread (16,0,0), which waits at __syncwarp with mask 0xffffffff ("));
    });
}

TEST_CASE("a warp operation that some of its lanes never reach is an error that names them") {
    in_all_orders([] {
        CHECK(contains(message([] { launch(early_exit, 1, 64, 40u); }),
                       "thread (32,0,0) waits at __syncwarp with mask 0xffffffff"));
        CHECK(contains(message([] { launch(early_exit, 1, 48, 40u); }), "for thread (40,0,0), which has exited"));
        CHECK(contains(message([] { launch(different_masks, 1, 32); }),
                       "thread (16,0,0) waits at __syncwarp with mask 0xffffffff ("));
        CHECK(contains(message([] { launch(not_in_mask, 1, 2); }), "its own lane 1 is missing"));
        int out = 0;
        CHECK(contains(message([&] { launch(width_of_three, 1, 32, &out); }), "width is 3"));
        CHECK_NOTHROW(launch(early_exit, 1, 64, 32u));  // a whole warp may go
        CHECK_NOTHROW(launch(early_exit, 1, 40, 40u));  // lanes 8 to 31 of the second warp have never been
    });
}

namespace {

template <class T>
__global__ void shuffles(T* idx, T* up, T* down, T* exclusive_or, int width) {
    const unsigned i = threadIdx.x;
    const T value = static_cast<T>(100 + i);
    idx[i] = __shfl_sync(full, value, 5, width);
    up[i] = __shfl_up_sync(full, value, 3, width);
    down[i] = __shfl_down_sync(full, value, 3, width);
    exclusive_or[i] = __shfl_xor_sync(full, value, 17, width);
}

template <class T>
void check_shuffles(int width) {
    std::array<T, 64> idx, up, down, exclusive_or;
    launch(shuffles<T>, 1, 64, idx.data(), up.data(), down.data(), exclusive_or.data(), width);
    for (int i = 0; i < 64; ++i) {
        CAPTURE(i);
        const int place = i % width;
        const int first = i - place;
        const auto at = [](int lane) { return static_cast<T>(100 + lane); };
        CHECK(idx[std::size_t(i)] == at(first + 5 % width));
        CHECK(up[std::size_t(i)] == at(place >= 3 ? i - 3 : i));
        CHECK(down[std::size_t(i)] == at(place + 3 < width ? i + 3 : i));
        // The upper groups of a warp reach the lower ones, but not the other way round.
        CHECK(exclusive_or[std::size_t(i)] == at((i ^ 17) < first + width ? i ^ 17 : i));
    }
}

__global__ void wide(unsigned long long* high, double* real) {
    const unsigned i = threadIdx.x;
    high[i] = __shfl_xor_sync(full, (1ull << 63) + i, 1);
    real[i] = __shfl_xor_sync(full, 1.0 + 0x1p-52 * i, 1);
}

__global__ void partial_masks(int* out) {
    const int i = static_cast<int>(threadIdx.x);
    const unsigned mask = i % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
    for (int round = 0; round < (i % 2 == 0 ? 1 : 3); ++round) out[i] = __shfl_sync(mask, 10 * round + i, i % 2 + 4);
}

__global__ void votes(unsigned* ballot, int* any, int* all) {
    const unsigned i = threadIdx.x;
    ballot[i] = __ballot_sync(full, i % 3 == 0);
    any[i] = __any_sync(full, i == 33);
    all[i] = __all_sync(full, i != 3);
}

__global__ void absent_lane(int* out) {
    const int other = __shfl_xor_sync(full, 7, 16);
    if (threadIdx.x == 0) *out = other;
}

}  // namespace

TEST_CASE("shuffles") {
    in_all_orders([] {
        for (const int width : {32, 16, 4, 1}) {
            check_shuffles<int>(width);
            check_shuffles<unsigned long long>(width);
            check_shuffles<float>(width);
        }
        std::array<unsigned long long, 32> high{};
        std::array<double, 32> real{};
        launch(wide, 1, 32, high.data(), real.data());
        for (unsigned i = 0; i < 32; ++i) CHECK(high[i] == (1ull << 63) + (i ^ 1));
        for (unsigned i = 0; i < 32; ++i) CHECK(real[i] == 1.0 + 0x1p-52 * (i ^ 1));

        std::array<int, 32> out{};
        launch(partial_masks, 1, 32, out.data());
        for (unsigned i = 0; i < 32; ++i) CHECK(out[i] == (i % 2 == 0 ? 4 : 25));
    });
}

TEST_CASE("votes count the lanes that there are") {
    in_all_orders([] {
        std::array<unsigned, 40> ballot{};
        std::array<int, 40> any{}, all{};
        launch(votes, 1, 40, ballot.data(), any.data(), all.data());
        for (unsigned i = 0; i < 40; ++i) {
            CHECK(ballot[i] == (i < 32 ? 0x49249249u : 0x00000092u));  // 33, 36 and 39 are lanes 1, 4 and 7
            CHECK(any[i] == (i < 32 ? 0 : 1));
            CHECK(all[i] == (i < 32 ? 0 : 1));
        }
    });
}

TEST_CASE("what comes from a lane that is not there depends on the order") {
    int forward = 0;
    int backward = 0;
    launch(absent_lane, 1, 16, &forward);
    set_order(Order::backward);
    launch(absent_lane, 1, 16, &backward);
    set_order(Order::forward);
    CHECK(forward != backward);
}

namespace {

__global__ void atomics(int* sum, float* real, unsigned* least, unsigned long long* most, int* bits, unsigned* turns,
                        int* swapped, unsigned* last) {
    const int i = static_cast<int>(threadIdx.x);
    atomicAdd(sum, i);
    atomicAdd(real, 0.5f);
    atomicMin(least, threadIdx.x + 5);
    atomicMax(most, (1ull << 40) + threadIdx.x);
    atomicOr(bits, 1 << (i % 8));
    atomicInc(turns, 6);
    if (atomicCAS(swapped, i, i + 1) == i) atomicExch(last, threadIdx.x);
}

__global__ void misaligned(unsigned long long* address) { atomicAdd(address, 1); }

/// The block that finishes last adds up what all of them have written.
__global__ void ticket_sum(const float* in, float* partial, unsigned* tickets, float* out) {
    __shared__ bool last;
    const float sum = warp_sum(in[blockIdx.x * 32 + threadIdx.x]);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicInc(tickets, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    const float total = warp_sum(threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0) *out = total;
}

__global__ void places(int* visits) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned y = blockIdx.y * blockDim.y + threadIdx.y;
    const unsigned z = blockIdx.z * blockDim.z + threadIdx.z;
    const unsigned lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
    const unsigned first = __shfl_sync(full, lane, 0);
    visits[x + gridDim.x * blockDim.x * (y + gridDim.y * blockDim.y * z)] += first == 0 ? 1 : 100;
}

__global__ void nothing() {}

__global__ void meet() { __syncthreads(); }

struct Counted {
    explicit Counted(int* count_) : count(count_) { ++*count; }
    ~Counted() { --*count; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    int* count;
};

__global__ void throws(int* alive, unsigned who) {
    const Counted counted(alive);
    __syncthreads();
    if (threadIdx.x == who) throw std::out_of_range("thrown by a kernel");
    __syncthreads();
}

__global__ void trace(unsigned* order, unsigned* count) { order[(*count)++] = blockIdx.x * blockDim.x + threadIdx.x; }

std::vector<unsigned> traced(Order order, std::uint64_t seed = 0) {
    std::vector<unsigned> run(64);
    unsigned count = 0;
    set_order(order, seed);
    launch(trace, 4, 16, run.data(), &count);
    set_order(Order::forward);
    return run;
}

/// Address space of this process, in pages.
long pages() {
    long size = 0;
    std::ifstream("/proc/self/statm") >> size;
    return size;
}

}  // namespace

TEST_CASE("atomic operations") {
    in_all_orders([] {
        int sum = 0, bits = 0, swapped = 0;
        unsigned least = 100, turns = 0, last = 99;
        unsigned long long most = 0;
        float real = 0;
        launch(atomics, 1, 100, &sum, &real, &least, &most, &bits, &turns, &swapped, &last);
        CHECK(sum == 4950);
        CHECK(real == 50.0f);
        CHECK(least == 5);
        CHECK(most == (1ull << 40) + 99);
        CHECK(bits == 0xff);
        CHECK(turns == 100 % 7);
        CHECK(swapped == static_cast<int>(last) + 1);
    });
    alignas(8) unsigned char bytes[16] = {};
    CHECK(contains(message([&] { launch(misaligned, 1, 1, reinterpret_cast<unsigned long long*>(bytes + 4)); }),
                   "block (0,0,0): thread (0,0,0) calls an atomic operation of 8 bytes"));
}

TEST_CASE("the last block finds what the others have written") {
    const std::vector<float> in = counting(20 * 32);
    in_all_orders([&] {
        std::vector<float> partial(20);
        unsigned tickets = 0;
        for (int again = 0; again < 2; ++again) {
            float sum = 0;
            launch(ticket_sum, 20, 32, in.data(), partial.data(), &tickets, &sum);
            CHECK(sum == 205120.0f);
            CHECK(tickets == 0);
        }
    });
}

TEST_CASE("indices in two and three dimensions") {
    in_all_orders([] {
        for (const auto& [grid, block] : {std::pair(dim3(2, 3), dim3(8, 5)), std::pair(dim3(2, 1, 3), dim3(3, 4, 5))}) {
            std::vector<int> visits(std::size_t{grid.x} * grid.y * grid.z * block.x * block.y * block.z);
            launch(places, grid, block, visits.data());
            CHECK(visits == std::vector<int>(visits.size(), 1));
        }
    });
}

TEST_CASE("a grid or block is as large as CUDA allows") {
    const auto refused = [](dim3 grid, dim3 block) {
        try {
            launch(nothing, grid, block);
        } catch (const std::invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    CHECK(refused({0}, {1}) == "launch: grid.x is 0; CUDA allows 1 to 2147483647");
    CHECK(contains(refused({0x80000000u}, {1}), "grid.x is 2147483648"));
    CHECK(contains(refused({1, 65536}, {1}), "grid.y"));
    CHECK(contains(refused({1, 1, 65536}, {1}), "grid.z"));
    CHECK(contains(refused({1}, {1025}), "block.x is 1025"));
    CHECK(contains(refused({1}, {1, 0}), "block.y is 0"));
    CHECK(contains(refused({1}, {1, 1, 65}), "block.z is 65"));
    CHECK(contains(refused({1}, {32, 33}), "block.x * block.y * block.z is 1056"));
    CHECK(refused({1, 1, 2}, {1024}).empty());
    CHECK(refused({1}, {4, 4, 64}).empty());
    CHECK_NOTHROW(launch(meet, 1, 1024));
}

TEST_CASE("what a kernel throws comes out of the launch, and all its threads are unwound") {
    in_all_orders([] {
        for (const unsigned who : {0u, 17u, 63u}) {
            int alive = 0;
            CHECK_THROWS_WITH_AS(launch(throws, 2, 64, &alive, who), "thrown by a kernel", std::out_of_range);
            CHECK(alive == 0);
        }
        int alive = 0;
        CHECK_NOTHROW(launch(throws, 2, 64, &alive, 64u));
        CHECK(alive == 0);
    });
}

TEST_CASE("orders") {
    std::vector<unsigned> run(64);
    std::iota(run.begin(), run.end(), 0u);
    CHECK(traced(Order::forward) == run);
    CHECK(traced(Order::backward) == std::vector<unsigned>(run.rbegin(), run.rend()));
    CHECK(traced(Order::shuffled, 1) == traced(Order::shuffled, 1));
    CHECK(traced(Order::shuffled, 1) != traced(Order::shuffled, 2));
    std::vector<unsigned> shuffled = traced(Order::shuffled, 3);
    CHECK(shuffled != run);
    std::sort(shuffled.begin(), shuffled.end());
    CHECK(shuffled == run);
}

TEST_CASE("a thousand launches take no more memory than a few") {
    const auto some = [](int launches) {
        for (int i = 0; i < launches; ++i) {
            launch(meet, 1, 64);
            if (message([] { launch(half_at_barrier, 1, 64); }).empty()) return false;
        }
        return true;
    };
    CHECK(some(20));
    const long before = pages();
    CHECK(some(1000));
    CHECK(pages() - before < 4096);  // AddressSanitizer keeps for a while what is released
}

TEST_CASE("half precision: every number comes back") {
    int wrong = 0;
    for (unsigned bits = 0; bits < 65536; ++bits) {
        const __half number = __ushort_as_half(static_cast<unsigned short>(bits));
        const float value = __half2float(number);
        const int exponent = static_cast<int>(bits >> 10 & 31);
        const double mantissa = bits & 1023;
        const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
        if (exponent == 31 && mantissa != 0) {
            wrong += !isnan(value) || __half_as_ushort(__float2half_rn(value)) != 0x7fff;
            continue;
        }
        const double expected = exponent == 31 ? std::numeric_limits<double>::infinity() : magnitude;
        wrong += static_cast<double>(value) != (bits < 32768 ? expected : -expected);
        wrong += __half_as_ushort(__float2half_rn(value)) != bits;
    }
    CHECK(wrong == 0);
}

TEST_CASE("half precision: rounding is to nearest, ties to even") {
    int wrong = 0;
    for (unsigned bits = 0; bits < 0x7c00; ++bits) {  // between each positive number and the next one up
        const auto at = [](unsigned b) { return __half2float(__ushort_as_half(static_cast<unsigned short>(b))); };
        const float low = at(bits);
        const float tie = bits == 0x7bff ? 65520.0f : (low + at(bits + 1)) / 2;
        const auto rounds = [](float value, unsigned expected) {
            return __half_as_ushort(__float2half_rn(value)) == expected &&
                   __half_as_ushort(__float2half_rn(-value)) == (expected | 0x8000);
        };
        wrong += !rounds(tie, bits + bits % 2);
        wrong += !rounds(std::nextafter(tie, 0.0f), bits);
        wrong += !rounds(std::nextafter(tie, 1e30f), bits + 1);
    }
    CHECK(wrong == 0);
    CHECK(__half_as_ushort(__float2half_rn(1e30f)) == 0x7c00);
    CHECK(__half_as_ushort(__float2half_rn(-1e-30f)) == 0x8000);
    CHECK(__half_as_ushort(__float2half_rn(std::numeric_limits<float>::denorm_min())) == 0);
}

TEST_CASE("arithmetic that C++ has by another name") {
    CHECK(__float_as_uint(1.0f) == 0x3f800000);
    CHECK(__int_as_float(__float_as_int(-2.5f)) == -2.5f);
    CHECK(__fmaf_rn(1 + 0x1p-12f, 1 + 0x1p-12f, -1 - 0x1p-11f) == 0x1p-24f);
    CHECK(min(std::numeric_limits<float>::quiet_NaN(), 1.0f) == 1.0f);
    CHECK(max(3u, 4u) == 4u);
    CHECK(rsqrtf(16.0f) == 0.25f);
    CHECK(__clz(1) == 31);
    CHECK(make_float4(1, 2, 3, 4).w == 4.0f);
    CHECK(cudaGetLastError() == cudaSuccess);
}
