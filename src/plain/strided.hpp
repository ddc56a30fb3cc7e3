// The kernels on memory that is not dense: block by block, with what lies apart copied together. Plain data,
// no Python.
#pragma once

#include <cstddef>

#include "plain/work.hpp"

namespace fast_momentum {

// Elements [begin, begin + n) of a slice of `work` that has dimensions. Which ones these are is the grid's
// business: parts that share a seam leave nothing out and do nothing twice.
void run_strided(const Work& work, const Slice& slice, std::size_t begin, std::size_t n);

}  // namespace fast_momentum
