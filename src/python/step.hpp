// One step, one look-ahead and their like: the order of things.
#pragma once

#include <pybind11/pybind11.h>

#include "python/state.hpp"

namespace fast_momentum {

// Set at the import, before there is a State: what is looked up when it is first needed makes other threads
// wait, while Python waits for them.
extern const PyTypeObject* state_type;

// What comes after the state may be null: not given.
void step(py::handle params, py::handle grads, py::handle state, py::handle grad_scale, py::handle zero_grads,
          py::handle prox);
py::object lookahead(py::handle params, py::handle state, py::object out);
void swap_average(State& state, py::handle params);
double global_norm(py::handle grads);

}  // namespace fast_momentum
