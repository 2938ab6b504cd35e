#include "fibre.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#if defined(__has_feature) && !defined(__SANITIZE_ADDRESS__)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__  // clang has another word for it than gcc
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace samg::simt {
namespace {

Fibre* entering = nullptr;  // makecontext passes nothing but ints

// AddressSanitizer must know which stack is in use: before a switch it is told of the next, after it of the switch's
// end.
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t stack_size = 256 * 1024;  // red zones make frames several times as large

void start_switch(void** fake_stack, const void* bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
void finish_switch(void* fake_stack, const void** bottom, std::size_t* size) {
    __sanitizer_finish_switch_fiber(fake_stack, bottom, size);
}
void forget(void* bottom, std::size_t size) { __asan_unpoison_memory_region(bottom, size); }
#else
constexpr std::size_t stack_size = 64 * 1024;

void start_switch(void**, const void*, std::size_t) {}
void finish_switch(void*, const void**, std::size_t*) {}
void forget(void*, std::size_t) {}
#endif

}  // namespace

Stack::Stack() : guard_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))), size_(stack_size), mapping_(nullptr) {
    void* mapping = mmap(nullptr, guard_ + size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap of a fibre's stack");
    mapping_ = static_cast<std::byte*>(mapping);
    if (mprotect(bottom(), size_, PROT_READ | PROT_WRITE) != 0) {
        const int error = errno;
        munmap(mapping_, guard_ + size_);
        throw std::system_error(error, std::generic_category(), "mprotect of a fibre's stack");
    }
}

Stack::~Stack() {
    forget(bottom(), size_);  // or the red zones on it would stay for whatever is mapped here next
    munmap(mapping_, guard_ + size_);
}

void* Stack::bottom() const { return mapping_ + guard_; }

std::size_t Stack::size() const { return size_; }

Fibre::Fibre(void (*body)()) : body_(body) {
    if (getcontext(&inside_) != 0) throw std::system_error(errno, std::generic_category(), "getcontext");
    inside_.uc_stack.ss_sp = stack_.bottom();
    inside_.uc_stack.ss_size = stack_.size();
    makecontext(&inside_, &Fibre::enter, 0);
    inside_.uc_stack.ss_size = 0;  // or AddressSanitizer would wipe the red zones of this stack at each swapcontext
}

void Fibre::resume() {
    entering = this;
    void* fake_stack = nullptr;
    start_switch(&fake_stack, stack_.bottom(), stack_.size());
    swapcontext(&outside_, &inside_);
    finish_switch(fake_stack, nullptr, nullptr);
}

void Fibre::suspend() {
    start_switch(&fake_stack_, outside_bottom_, outside_size_);
    swapcontext(&inside_, &outside_);
    finish_switch(fake_stack_, &outside_bottom_, &outside_size_);
}

void Fibre::enter() {
    Fibre& self = *entering;
    finish_switch(nullptr, &self.outside_bottom_, &self.outside_size_);
    for (;;) {
        self.body_();
        self.suspend();
    }
}

}  // namespace samg::simt
