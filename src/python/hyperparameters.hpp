// Hyperparameters as the user gives them, numbers or prefixes of the structure of params -> checked doubles.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "kernels/kernels.hpp"
#include "plain/coefficients.hpp"
#include "plain/limits.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

constexpr const char* number_names[n_numbers] = {"lr", "momentum", "dampening", "weight_decay"};

struct Flag {
    enum Name : unsigned { nesterov, decoupled_weight_decay, maximize };
};
constexpr unsigned n_flags = 3;
constexpr const char* flag_names[n_flags] = {"nesterov", "decoupled_weight_decay", "maximize"};

// One hyperparameter: a number for all arrays, or one for each.
class Hyperparameter {
  public:
    // Throws, with the requirement that `value` misses. `dtypes` are those of the leaves of `tree`.
    Hyperparameter(Number::Name name, py::handle value, const Tree& tree,
                   const std::vector<unsigned char>& dtypes, Form form);

    bool per_array() const { return per_array_; }
    double of(std::size_t leaf) const { return per_array_ ? numbers_[leaf] : numbers_[0]; }
    bool any_nonzero() const;
    bool all_zero() const;

    // As it is read back: a float, or nested tuples and read-only mappings.
    py::object value() const { return value_; }

  private:
    bool per_array_;
    std::vector<double> numbers_;
    py::object value_;
};

// A real number of Python or NumPy. `way_out` is for those who give an array.
double checked_real(py::handle value, const Path& path, const char* way_out = "");
bool checked_flag(const std::string& name, py::handle value);
// A whole number that is not below `least`, nor so large that it could not be counted up.
long long checked_count(const std::string& name, py::handle value, long long least);
// A string that is one of `names`: its place among them.
unsigned checked_name(const char* what, py::handle value, const char* const* names, unsigned n);
Form checked_form(py::handle value);

// The constant `what`, formed of two hyperparameters, must not vanish or overflow in the dtype of array i.
void check_product(const char* what, double a, double b, const DtypeKernels& dtype, const Tree& tree,
                   std::size_t i);

// Plain tuples and dicts in the place of what Hyperparameter::value() has.
py::object plain(py::handle value);

}  // namespace fast_momentum
