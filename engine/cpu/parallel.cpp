#include "parallel.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace samg::cpu {

namespace {

/// One caller's work. It is on the caller's stack, which therefore waits for all who work on it.
struct Job {
    int items, workers;
    void (*task)(void*, int, int);
    void* context;
    std::atomic<int> next{0};
    int joined = 1;  // the caller

    void work(int worker) {
        for (int item = next.fetch_add(1); item < items; item = next.fetch_add(1)) task(context, item, worker);
    }
};

/// The threads that help, for one caller at a time.
class Helpers {
  public:
    /// Runs a job with their help, or returns false if another caller has it.
    bool run(Job& job) {
        const std::unique_lock<std::mutex> mine(caller_, std::try_to_lock);
        if (!mine) return false;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            hire(job.workers - 1);
            job_ = &job;
            ++number_;
        }
        job.workers == 2 ? wake_.notify_one() : wake_.notify_all();
        job.work(0);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            job_ = nullptr;  // helpers that have not joined by now are not needed
        }
        while (at_work_.load(std::memory_order_acquire) > 0) std::this_thread::yield();  // for one item at most
        return true;
    }

  private:
    void hire(int count) {
        try {
            for (; hired_ < count; ++hired_) std::thread(&Helpers::help, this).detach();
        } catch (const std::system_error&) {
            // The system gives no more threads: the existing ones do all the work.
        }
    }

    void help() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (long long done = 0;;) {  // the number of the last job helped with
            wake_.wait(lock, [&] { return job_ != nullptr && number_ != done && job_->joined < job_->workers; });
            Job& job = *job_;
            const int worker = job.joined++;
            done = number_;
            at_work_.fetch_add(1, std::memory_order_relaxed);
            lock.unlock();
            job.work(worker);
            at_work_.fetch_sub(1, std::memory_order_release);
            lock.lock();
        }
    }

    std::mutex caller_;  // held by the caller whose job it is
    std::mutex mutex_;   // of what follows
    std::condition_variable wake_;
    Job* job_ = nullptr;
    long long number_ = 0;  // of the job
    int hired_ = 0;
    std::atomic<int> at_work_{0};
};

/// Never destroyed, as helpers sleep in it until the process ends. The child of a fork has none of its parent's threads
/// and makes new ones.
std::atomic<Helpers*>& helpers() {
    static std::atomic<Helpers*> all{[] {
        pthread_atfork(nullptr, nullptr, [] { helpers() = new Helpers; });
        return new Helpers;
    }()};
    return all;
}

}  // namespace

void parallel_for(int items, int threads, void (*task)(void*, int, int), void* context) {
    Job job{items, threads < items ? threads : items, task, context};
    if (job.workers < 2 || !helpers().load()->run(job)) job.work(0);
}

}  // namespace samg::cpu
