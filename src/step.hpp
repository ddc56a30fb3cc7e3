// One step, and one look-ahead: the order of things.
#pragma once

#include <pybind11/pybind11.h>

#include "state.hpp"

namespace fast_momentum {

void step(py::handle params, py::handle grads, py::handle state);
py::object lookahead(py::handle params, py::handle state, py::object out);

}  // namespace fast_momentum
