// A function that can stop half-way and go on later, on a stack of its own.
#pragma once

#include <ucontext.h>

#include <cstddef>

namespace samg::simt {

/// Address space with a page below it that cannot be touched: running over the end stops the program where it happens.
class Stack {
  public:
    Stack();
    ~Stack();
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;

    void* bottom() const;
    std::size_t size() const;

  private:
    std::size_t guard_;
    std::size_t size_;
    std::byte* mapping_;
};

/// Runs `body` again and again, each time until it returns or calls `suspend`. All calls of `resume` come from outside
/// of any fibre and, at any one time, from one thread of the operating system. No exception may leave `body`; a fibre
/// that is destroyed while `body` is suspended does not unwind it.
class Fibre {
  public:
    explicit Fibre(void (*body)());
    Fibre(const Fibre&) = delete;
    Fibre& operator=(const Fibre&) = delete;

    /// Goes into the fibre, and returns when it suspends itself or its body returns.
    void resume();
    /// To be called inside of this fibre: goes back to where `resume` was called.
    void suspend();

  private:
    static void enter();

    Stack stack_;
    void (*body_)();
    ucontext_t inside_{};
    ucontext_t outside_{};
    void* fake_stack_ = nullptr;  // AddressSanitizer's; so are the two below
    const void* outside_bottom_ = nullptr;
    std::size_t outside_size_ = 0;
};

}  // namespace samg::simt
