// Steps of some rows of an array, a few at a time. Plain data, no Python.
#pragma once

#include <cstddef>

#include "plain/rows.hpp"
#include "plain/work.hpp"

namespace fast_momentum {

// Forms rows.sums, which are used from then on. `update` is the one of `work` that these are the rows of.
void add_up(const Work& work, const Update& update, Rows& rows);

// The distinct rows [begin, begin + n) of an update of `work` that has rows.
void run_rows(const Work& work, const Update& update, std::size_t begin, std::size_t n);

}  // namespace fast_momentum
