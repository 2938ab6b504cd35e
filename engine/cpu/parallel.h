// Work on several threads.
#pragma once

namespace samg::cpu {

/// Runs task(context, item, worker) for every item in [0, items), on up to `threads` threads including the caller's.
/// Each thread has its own `worker` in [0, threads). Helper threads sleep between calls. The caller does not wait for a
/// helper that wakes after all items are taken, and works alone while the helpers work for another caller.
void parallel_for(int items, int threads, void (*task)(void* context, int item, int worker), void* context);

template <class Task>
static inline void parallel_for(int items, int threads, Task task) {
    parallel_for(
        items, threads, [](void* context, int item, int worker) { (*static_cast<Task*>(context))(item, worker); },
        &task);
}

/// How many of the allowed threads are worth waking for work on this many bytes.
static inline int useful_threads(int threads, long long bytes) {
    constexpr long long bytes_per_thread = 1 << 20;  // some 0.1 ms: waking a thread takes some 5 to 40 us
    const long long useful = bytes / bytes_per_thread + 1;
    return threads < useful ? (threads > 0 ? threads : 1) : static_cast<int>(useful);
}

}  // namespace samg::cpu
