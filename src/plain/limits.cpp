#include "plain/limits.hpp"

#include <cmath>

namespace fast_momentum {

namespace {

const char* missed(bool nonzero, double rounded) {
    if (!std::isfinite(rounded)) return "stay finite";
    return nonzero && rounded == 0 ? "stay above 0" : nullptr;
}

}  // namespace

const char* missed_rounding(const Range& range, double value, const DtypeKernels& dtype) {
    const double rounded = dtype.rounded(value);
    if (!range.has_high && rounded == 1 && range.high == 1) return "stay below 1";
    return missed(value != 0, rounded);
}

const char* missed_product(double a, double b, const DtypeKernels& dtype) {
    return missed(a != 0 && b != 0, dtype.rounded(a * b));
}

}  // namespace fast_momentum
