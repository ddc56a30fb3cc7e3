// Hyperparameters as the user gives them, numbers or prefixes of the structure of params -> checked doubles.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "coefficients.hpp"
#include "kernels.hpp"
#include "tree.hpp"

namespace fast_momentum {

enum Name : unsigned { lr, momentum, dampening, weight_decay };
constexpr unsigned n_names = 4;
constexpr const char* hyperparameter_names[n_names] = {"lr", "momentum", "dampening", "weight_decay"};

enum FlagName : unsigned { nesterov_flag, decoupled_weight_decay_flag, maximize_flag };
constexpr unsigned n_flags = 3;
constexpr const char* flag_names[n_flags] = {"nesterov", "decoupled_weight_decay", "maximize"};

// One hyperparameter: a number for all arrays, or one for each.
class Hyperparameter {
  public:
    // Throws, with the requirement that `value` misses. `dtypes` are those of the leaves of `tree`.
    Hyperparameter(Name name, py::handle value, const Tree& tree, const std::vector<unsigned char>& dtypes,
                   Form form);

    bool per_array() const { return per_array_; }
    double of(std::size_t leaf) const { return per_array_ ? numbers_[leaf] : numbers_[0]; }
    bool any_nonzero() const;

    // As it is read back: a float, or nested tuples and read-only mappings.
    py::object value() const { return value_; }

  private:
    bool per_array_;
    std::vector<double> numbers_;
    py::object value_;
};

bool checked_flag(const std::string& name, py::handle value);
// A whole number that is not below `least`.
long long checked_count(const std::string& name, py::handle value, long long least);
Form checked_form(py::handle value);

// The constant `what`, formed of two hyperparameters, must not vanish or overflow in the dtype.
void check_product(const char* what, double a, double b, const DtypeKernels& dtype, const std::string& array);

// Plain tuples and dicts in the place of what Hyperparameter::value() has.
py::object plain(py::handle value);

}  // namespace fast_momentum
