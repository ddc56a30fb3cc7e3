// The whole update in one pass over memory: block by block, each stage while the block is in L1. Plain data,
// no Python.
#pragma once

#include <cstddef>

#include "plain/work.hpp"

namespace fast_momentum {

// Parts of an update begin at multiples of this many elements.
constexpr std::size_t update_piece = 4096;

// Elements [begin, begin + n) of an update of `work`.
void run_update(const Work& work, const Update& update, std::size_t begin, std::size_t n);

}  // namespace fast_momentum
