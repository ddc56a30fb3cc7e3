// The options of a whole update, as the user gives them -> checked values.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <vector>

#include "python/arrays.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// Those that are a number or None, one for all arrays.
struct Option {
    enum Name : unsigned { clip_norm, clip_value, average_decay };
};
constexpr unsigned n_options = 3;
constexpr const char* option_names[n_options] = {"clip_norm", "clip_value", "average_decay"};

// What to do about a gradient that is NaN or infinite.
enum class Nonfinite { propagate, raise, skip };
constexpr unsigned n_nonfinite = 3;
constexpr const char* nonfinite_names[n_nonfinite] = {"propagate", "raise", "skip"};

// `dtypes` are those that the leaves of `tree` are worked on in.
std::optional<double> checked_option(Option::Name name, py::handle value, const Tree& tree,
                                     const std::vector<unsigned char>& dtypes);
Nonfinite checked_nonfinite(py::handle value);
double checked_grad_scale(py::handle value, const Tree& tree, const std::vector<unsigned char>& dtypes);

// As what velocities are stored, and its name as it reads back: nullptr for None.
struct VelocityDtype {
    Stored stored = Stored::native;
    const char* name = nullptr;
};
VelocityDtype checked_velocity_dtype(py::handle value, const Tree& tree,
                                     const std::vector<unsigned char>& dtypes);

}  // namespace fast_momentum
