// What hyperparameters must be; the only place that says so. Plain data, no Python.
#pragma once

#include "kernels/kernels.hpp"
#include "plain/coefficients.hpp"

namespace fast_momentum {

struct Number {
    enum Name : unsigned { lr, momentum, dampening, weight_decay };
};
constexpr unsigned n_numbers = 4;

// Each returns the requirement that is missed, which follows "<name> must ", or nullptr. NaN misses it.
const char* missed_range(Number::Name name, double value);
// Of a value in its range, in an array of this dtype.
const char* missed_rounding(Number::Name name, double value, const DtypeKernels& dtype);
// Of a constant that is formed of two hyperparameters.
const char* missed_product(double a, double b, const DtypeKernels& dtype);

}  // namespace fast_momentum
