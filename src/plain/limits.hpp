// What hyperparameters must be once they are rounded to the dtype of an array; tables.hpp has their ranges.
#pragma once

#include <cmath>

#include "kernels/kernels.hpp"
#include "plain/tables.hpp"

namespace fast_momentum {

// No count, of steps for one, gets as far.
constexpr long long most_count = 1LL << 62;

// Each returns the requirement that is missed, which follows "<name> must ", or nullptr.
inline const char* missed(bool nonzero, double rounded) {
    if (!std::isfinite(rounded)) return "stay finite";
    return nonzero && rounded == 0 ? "stay above 0" : nullptr;
}

// Of a value in its range.
inline const char* missed_rounding(const Range& range, double value, const DtypeKernels& dtype) {
    const double rounded = dtype.rounded(value);
    if (std::isinf(value)) return nullptr;
    if (!range.has_high && rounded == 1 && range.high == 1) return "stay below 1";
    return missed(value != 0 && range.low >= 0, rounded);
}

// Of a constant that is formed of two hyperparameters.
inline const char* missed_product(double a, double b, const DtypeKernels& dtype) {
    return missed(a != 0 && b != 0, dtype.rounded(a * b));
}

}  // namespace fast_momentum
