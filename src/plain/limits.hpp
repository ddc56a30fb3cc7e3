// What hyperparameters must be once they are rounded to the dtype of an array; tables.hpp has their ranges.
#pragma once

#include "kernels/kernels.hpp"
#include "plain/tables.hpp"

namespace fast_momentum {

// Each returns the requirement that is missed, which follows "<name> must ", or nullptr.

// Of a value in its range.
const char* missed_rounding(const Range& range, double value, const DtypeKernels& dtype);
// Of a constant that is formed of two hyperparameters.
const char* missed_product(double a, double b, const DtypeKernels& dtype);

}  // namespace fast_momentum
