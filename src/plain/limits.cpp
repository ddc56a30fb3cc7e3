#include "plain/limits.hpp"

#include <cmath>

namespace fast_momentum {

namespace {

struct Range {
    bool (*contains)(double);
    const char* requirement;
};

// By Number.
constexpr Range ranges[n_numbers] = {
    {[](double x) { return x >= 0 && std::isfinite(x); }, "be finite and >= 0"},
    {[](double x) { return x >= 0 && x < 1; }, "be in [0, 1)"},
    {[](double x) { return x >= 0 && x <= 1; }, "be in [0, 1]"},
    {[](double x) { return x >= 0 && std::isfinite(x); }, "be finite and >= 0"},
};

const char* missed(bool nonzero, double rounded) {
    if (!std::isfinite(rounded)) return "stay finite";
    return nonzero && rounded == 0 ? "stay above 0" : nullptr;
}

}  // namespace

const char* missed_range(Number::Name name, double value) {
    return ranges[name].contains(value) ? nullptr : ranges[name].requirement;
}

const char* missed_rounding(Number::Name name, double value, const DtypeKernels& dtype) {
    const double rounded = dtype.rounded(value);
    if (name == Number::momentum && rounded == 1) return "stay below 1";
    return missed(value != 0, rounded);
}

const char* missed_product(double a, double b, const DtypeKernels& dtype) {
    return missed(a != 0 && b != 0, dtype.rounded(a * b));
}

}  // namespace fast_momentum
