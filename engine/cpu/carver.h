// Divides a workspace into arrays.
#pragma once

#include "samg/types.h"

namespace samg::cpu::SAMG_LEVEL {

/// Takes arrays from a workspace one after the other; without memory it only counts bytes.
class Carver {
  public:
    explicit Carver(void* memory = nullptr) : memory_(static_cast<unsigned char*>(memory)) {}

    template <class T>
    T* take(std::size_t count) {
        T* const array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
        bytes_ += (count * sizeof(T) + alignment - 1) / alignment * alignment;
        return array;
    }

    std::size_t bytes() const { return bytes_; }

  private:
    unsigned char* memory_;
    std::size_t bytes_ = 0;
};

}  // namespace samg::cpu::SAMG_LEVEL
