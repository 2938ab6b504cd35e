// Helper threads, at the level that kernels use them.
#include "cpu/parallel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

using namespace samg;

namespace {

std::size_t size(int count) { return static_cast<std::size_t>(count); }

}  // namespace

TEST_CASE("parallel_for does every item once, whatever the number of threads") {
    for (const int items : {0, 1, 2, 7, 1000}) {
        for (const int threads : {-1, 0, 1, 2, 5, 40}) {
            CAPTURE(items);
            CAPTURE(threads);
            std::vector<std::atomic<int>> visits(size(items));
            std::atomic<int> bad_workers{0};
            cpu::parallel_for(items, threads, [&](int item, int worker) {
                visits[size(item)].fetch_add(1);
                if (worker < 0 || worker >= std::max(std::min(threads, items), 1)) bad_workers.fetch_add(1);
            });
            CHECK(std::all_of(visits.begin(), visits.end(), [](const auto& count) { return count == 1; }));
            CHECK(bad_workers == 0);
        }
    }
}

TEST_CASE("parallel_for: no two items at once have the same worker") {
    const int threads = 4;
    std::atomic<int> busy[threads] = {};
    std::atomic<int> clashes{0};
    cpu::parallel_for(2000, threads, [&](int, int worker) {
        if (busy[worker].fetch_add(1) != 0) clashes.fetch_add(1);
        busy[worker].fetch_sub(1);
    });
    CHECK(clashes == 0);
}

TEST_CASE("parallel_for: callers at once all get their work done") {
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 5; ++caller) {
        callers.emplace_back([&wrong, caller] {
            for (int turn = 0; turn < 200; ++turn) {
                const int items = 1 + (caller + turn) % 9, threads = 1 + turn % 4;
                std::atomic<int> sum{0};
                cpu::parallel_for(items, threads, [&](int item, int worker) {
                    sum.fetch_add(item + 1);
                    if (worker < 0 || worker >= threads) wrong.fetch_add(1);
                });
                if (sum != items * (items + 1) / 2) wrong.fetch_add(1);
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(wrong == 0);
}

TEST_CASE("useful_threads is from 1 to what is allowed, and rises with the work") {
    CHECK(cpu::useful_threads(8, 0) == 1);
    CHECK(cpu::useful_threads(0, 1 << 30) == 1);
    CHECK(cpu::useful_threads(3, 1LL << 40) == 3);
    CHECK(cpu::useful_threads(1 << 20, 1 << 28) > 1);
    CHECK(cpu::useful_threads(1 << 20, 1 << 28) < 1 << 20);
}
