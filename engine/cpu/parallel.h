// Work on several threads.
#pragma once

namespace samg::cpu {

/// Runs task(context, item, worker) for every item in [0, items), on up to `threads` threads including the caller's;
/// worker is in [0, threads). Threads are started for the call and end with it, as nothing then has to survive a fork,
/// wait beside a backend's own threads or be shut down. Starting one takes some 20 to 60 us: see `useful_threads`.
void parallel_for(int items, int threads, void (*task)(void* context, int item, int worker), void* context);

template <class Task>
static inline void parallel_for(int items, int threads, Task task) {
    parallel_for(
        items, threads, [](void* context, int item, int worker) { (*static_cast<Task*>(context))(item, worker); },
        &task);
}

/// How many of the threads allowed are worth starting for work that touches so many bytes.
static inline int useful_threads(int threads, long long bytes) {
    constexpr long long bytes_per_thread = 2 << 20;  // some 0.2 ms, well above what starting a thread takes
    const long long useful = bytes / bytes_per_thread + 1;
    return threads < useful ? (threads > 0 ? threads : 1) : static_cast<int>(useful);
}

}  // namespace samg::cpu
