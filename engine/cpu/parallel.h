// Work on several threads.
#pragma once

namespace samg::cpu {

/// Runs task(context, item, worker) for every item in [0, items), on up to `threads` threads including the caller's;
/// worker is in [0, threads), and no two threads have the same one. Helpers sleep between calls. One that is not awake
/// before the caller has done everything is not waited for; if they are at work for another caller, this one works
/// alone.
void parallel_for(int items, int threads, void (*task)(void* context, int item, int worker), void* context);

template <class Task>
static inline void parallel_for(int items, int threads, Task task) {
    parallel_for(
        items, threads, [](void* context, int item, int worker) { (*static_cast<Task*>(context))(item, worker); },
        &task);
}

/// How many of the threads allowed are worth waking for work that touches so many bytes.
static inline int useful_threads(int threads, long long bytes) {
    constexpr long long bytes_per_thread = 1 << 20;  // some 0.1 ms: waking a thread takes some 5 to 40 us
    const long long useful = bytes / bytes_per_thread + 1;
    return threads < useful ? (threads > 0 ? threads : 1) : static_cast<int>(useful);
}

}  // namespace samg::cpu
