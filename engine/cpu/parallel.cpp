#include "parallel.h"

#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace samg::cpu {

void parallel_for(int items, int threads, void (*task)(void*, int, int), void* context) {
    if (threads > items) threads = items;
    std::atomic<int> next{0};
    const auto work = [&](int worker) {
        for (int item = next.fetch_add(1); item < items; item = next.fetch_add(1)) task(context, item, worker);
    };
    std::vector<std::thread> helpers;
    try {
        for (int worker = 1; worker < threads; ++worker) helpers.emplace_back(work, worker);
    } catch (const std::system_error&) {
        // No more threads are to be had: those there are do all the work.
    }
    work(0);
    for (std::thread& helper : helpers) helper.join();
}

}  // namespace samg::cpu
