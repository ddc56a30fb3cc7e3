// Slices -> pieces -> kernels: the only place that divides work among threads. Plain data, no Python.
#pragma once

#include <cstddef>

#include "plain/work.hpp"

namespace fast_momentum {

// The GIL is released for calls that move as much as this.
constexpr std::size_t release_gil_bytes = std::size_t(1) << 20;

// The number of threads that it pays to use for moving so much.
int threads_for(std::size_t bytes);

// Cannot fail, and knows nothing of Python. Allocates nothing; with more than one thread, OpenMP may.
void run(const Work& work, int threads) noexcept;

}  // namespace fast_momentum
