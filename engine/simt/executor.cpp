#include "executor.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fibre.h"
#include "launch_limits.h"
#include "thread.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace samg::simt {
namespace {

using detail::Exchange;
using detail::Meeting;
using detail::Site;

/// Thrown through threads that wait for what will not come, to unwind them; not an error by itself.
struct Cancelled {};

/// All there is of state, beside CUDA's variables above.
class Executor {
  public:
    void set_order(Order order, std::uint64_t seed) {
        const std::lock_guard lock(mutex_);
        order_ = order;
        seed_ = seed;
    }

    void run(dim3 grid, dim3 block, const std::function<void()>& kernel) {
        check_limits(grid, block);
        const std::lock_guard lock(mutex_);  // one at a time: __shared__ variables are static
        kernel_ = &kernel;
        gridDim = grid;
        blockDim = block;
        random_.seed(seed_);
        threads_.resize(std::size_t{block.x} * block.y * block.z);
        std::vector<std::size_t> blocks(std::size_t{grid.x} * grid.y * grid.z);
        arrange(blocks);
        for (const std::size_t b : blocks) {
            blockIdx = index(b, grid);
            run_block();
        }
    }

    void meet_block(Site site) { wait(Meeting::syncthreads, ~0u, 0, 0, site); }

    Exchange meet_warp(Meeting meeting, unsigned mask, std::uint64_t value, unsigned source, Site site) {
        if ((mask >> lane() & 1) == 0) {
            std::ostringstream out;
            out << "block " << text(blockIdx) << ": thread " << text(running_->index) << " calls "
                << names[static_cast<int>(meeting)] << " with mask 0x" << std::hex << mask << std::dec
                << ", where its own lane " << lane() << " is missing (" << site.file << ":" << site.line << ")";
            throw std::logic_error(out.str());
        }
        wait(meeting, mask, value, source, site);
        return running_->received;
    }

    unsigned lane() const { return static_cast<unsigned>(running_ - threads_.data()) % warp_size; }

    /// Inside of a fibre: runs the thread that it was resumed for and, as long as the threads that are next have not
    /// begun yet, those too. A kernel without synchronisation thus needs one fibre for all threads of a block.
    void work() {
        do {
            try {
                (*kernel_)();
            } catch (const Cancelled&) {
            } catch (...) {
                if (!error_) error_ = std::current_exception();
            }
            running_->state = Thread::State::exited;
            --alive_;
        } while (next_is_fresh());
        idle_.push_back(running_->fibre);
    }

  private:
    static uint3 index(std::size_t i, dim3 extent) {
        return {static_cast<unsigned>(i % extent.x), static_cast<unsigned>(i / extent.x % extent.y),
                static_cast<unsigned>(i / extent.x / extent.y)};
    }

    void arrange(std::vector<std::size_t>& sequence) {
        std::iota(sequence.begin(), sequence.end(), std::size_t{0});
        if (order_ == Order::backward) std::reverse(sequence.begin(), sequence.end());
        if (order_ == Order::shuffled) std::shuffle(sequence.begin(), sequence.end(), random_);
    }

    void run_block() {
        for (std::size_t i = 0; i < threads_.size(); ++i) {
            threads_[i] = Thread{};
            threads_[i].index = index(i, blockDim);
        }
        alive_ = threads_.size();
        sequence_.resize(threads_.size());
        error_ = nullptr;
        while (alive_ > 0) {
            try {
                sweep();
                if (!error_ && alive_ > 0 && !hold_meetings()) throw stuck();
            } catch (...) {
                error_ = std::current_exception();
            }
            if (error_) {
                cancel();
                std::rethrow_exception(std::exchange(error_, nullptr));
            }
        }
    }

    /// Lets each thread that can run do so until it waits or exits.
    void sweep() {
        arrange(sequence_);
        for (next_ = 0; next_ < sequence_.size() && !error_;) {
            Thread& thread = threads_[sequence_[next_++]];
            if (thread.state == Thread::State::fresh || thread.state == Thread::State::ready) resume(thread);
        }
    }

    void resume(Thread& thread) {
        if (thread.fibre == nullptr) {
            if (idle_.empty()) {
                fibres_.push_back(std::make_unique<Fibre>(work_here));
                idle_.reserve(fibres_.size());  // nothing may be thrown where a fibre ends
                idle_.push_back(fibres_.back().get());
            }
            thread.fibre = idle_.back();
            idle_.pop_back();
        }
        begin(thread);
        thread.fibre->resume();
    }

    void begin(Thread& thread) {
        running_ = &thread;
        threadIdx = thread.index;
    }

    bool next_is_fresh() {
        if (error_ || next_ == sequence_.size()) return false;
        Thread& next = threads_[sequence_[next_]];
        if (next.state != Thread::State::fresh) return false;
        ++next_;
        next.fibre = running_->fibre;
        begin(next);
        return true;
    }

    void wait(Meeting meeting, unsigned mask, std::uint64_t value, unsigned source, Site site) {
        if (error_) throw Cancelled{};  // once more: the kernel has caught the first one
        Thread& self = *running_;
        self.state = Thread::State::waiting;
        self.meeting = meeting;
        self.mask = mask;
        self.site = site;
        self.value = value;
        self.source = source;
        self.fibre->suspend();
        if (error_) throw Cancelled{};
    }

    /// Those that the thread waits for, itself among them.
    std::vector<Thread*>& peers(const Thread& thread) {
        const std::size_t own = static_cast<std::size_t>(&thread - threads_.data());
        const bool block = thread.meeting == Meeting::syncthreads;
        const std::size_t first = block ? 0 : own - own % warp_size;
        const std::size_t last = block ? threads_.size() : std::min(first + warp_size, threads_.size());
        peers_.clear();
        for (std::size_t i = first; i < last; ++i) {
            if (block || (thread.mask >> (i - first) & 1) != 0) peers_.push_back(&threads_[i]);
        }
        return peers_;
    }

    /// Lets go on whoever waits for nobody any more; false if there is no such thread.
    bool hold_meetings() {
        bool any = false;
        for (std::size_t i = 0; i < threads_.size(); ++i) {
            Thread& thread = threads_[i];
            if (thread.state != Thread::State::waiting) continue;
            if (thread.meeting == Meeting::syncthreads && i > 0) continue;  // enough to look from thread 0
            const std::vector<Thread*>& all = peers(thread);
            if (all.front() != &thread) continue;  // enough to look from the first
            if (!std::all_of(all.begin(), all.end(), [&](const Thread* peer) { return together(thread, *peer); }))
                continue;
            if (thread.meeting != Meeting::syncthreads) exchange(all);
            for (Thread* peer : all) peer->state = Thread::State::ready;
            any = true;
        }
        return any;
    }

    void exchange(const std::vector<Thread*>& lanes) {
        // Large numbers, but others in another order: a result that depends on them will not be the same in all orders.
        std::uint64_t values[warp_size];
        std::fill_n(values, warp_size, order_ == Order::backward ? 0x8181818181818181u : 0x7f7f7f7f7f7f7f7fu);
        unsigned ballot = 0;
        for (const Thread* thread : lanes) {
            const auto lane = static_cast<unsigned>(thread - threads_.data()) % warp_size;
            values[lane] = thread->value;
            if (thread->value != 0) ballot |= 1u << lane;
        }
        for (Thread* thread : lanes) thread->received = {values[thread->source], ballot};
    }

    /// Why nothing goes on. Somebody who has exited is the better explanation than somebody who waits as well.
    std::logic_error stuck() {
        for (const bool exited : {true, false}) {
            for (const Thread& thread : threads_) {
                if (thread.state != Thread::State::waiting) continue;
                for (const Thread* peer : peers(thread)) {
                    if (together(thread, *peer) || (exited && peer->state != Thread::State::exited)) continue;
                    return std::logic_error("block " + text(blockIdx) + ": thread " + text(thread.index) + " " +
                                            text(thread) + " for thread " + text(peer->index) + ", which " +
                                            text(*peer));
                }
            }
        }
        return std::logic_error("block " + text(blockIdx) + ": stuck");
    }

    /// Unwinds all threads that have begun, so that what they hold is released.
    void cancel() {
        next_ = sequence_.size();
        for (Thread& thread : threads_) {
            if (thread.state == Thread::State::waiting || thread.state == Thread::State::ready) resume(thread);
        }
    }

    static void work_here();

    std::mutex mutex_;
    Order order_ = Order::forward;
    std::uint64_t seed_ = 0;
    std::mt19937_64 random_;

    const std::function<void()>* kernel_ = nullptr;
    std::vector<Thread> threads_;  // of the block that runs
    std::vector<Thread*> peers_;   // kept for its memory
    std::vector<std::size_t> sequence_;
    std::size_t next_ = 0;  // in the sequence
    std::size_t alive_ = 0;
    Thread* running_ = nullptr;
    std::exception_ptr error_;

    std::vector<std::unique_ptr<Fibre>> fibres_;  // as many as were ever in use at a time
    std::vector<Fibre*> idle_;
};

Executor& executor() {
    static Executor only;
    return only;
}

void Executor::work_here() { executor().work(); }

}  // namespace

void set_order(Order order, std::uint64_t seed) { executor().set_order(order, seed); }

namespace detail {

void run(dim3 grid, dim3 block, const std::function<void()>& thread) { executor().run(grid, block, thread); }

void meet_block(Site site) { executor().meet_block(site); }

Exchange meet_warp(Meeting meeting, unsigned mask, std::uint64_t value, unsigned source, Site site) {
    return executor().meet_warp(meeting, mask, value, source, site);
}

unsigned lane() { return executor().lane(); }

void check_aligned(const void* address, std::size_t size) {
    if (reinterpret_cast<std::uintptr_t>(address) % size == 0) return;
    std::ostringstream out;
    out << "block " << text(blockIdx) << ": thread " << text(threadIdx) << " calls an atomic operation of " << size
        << " bytes on " << address << ", which is not aligned to that";
    throw std::logic_error(out.str());
}

}  // namespace detail
}  // namespace samg::simt
