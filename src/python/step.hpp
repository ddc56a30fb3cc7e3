// One step, one look-ahead and their like: the order of things.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

#include "python/state.hpp"

namespace fast_momentum {

// Set at the import, before there is a State: what is looked up when it is first needed makes other threads
// wait, while Python waits for them.
extern const PyTypeObject* state_type;

// What comes after the state may be null: not given.
void step(py::handle params, py::handle grads, py::handle state, py::handle grad_scale, py::handle zero_grads,
          py::handle prox);
// The same with gradients that have been looked at, all of them together with others: as they are then to be
// clipped by their norm, the coefficient.
void clipped_step(py::handle params, py::handle grads, py::handle state, py::handle grad_scale,
                  double clip_coefficient);
// Of a state whose arrays are kept elsewhere, all of a step but the arithmetic: when all is checked,
// use(params, grads) has the arrays of both, makes the step, and returns whether it was not left out, and the
// norm or None. Where it raises, nothing has changed.
void step_elsewhere(py::handle params, py::handle grads, py::handle state, py::handle grad_scale,
                    py::handle zero_grads, const py::object& use);
py::object lookahead(py::handle params, py::handle state, py::object out);
void swap_average(State& state, py::handle params);
double global_norm(py::handle grads);
// The sums of squares of each block, times `scale` and `factor`; and from those of several such lists, which
// blocks(factor) has, the norm of all, and whether all is finite.
py::array_t<double> sums_of_squares(py::handle grads, double scale, double factor);
std::pair<double, bool> norm_of_blocks(const py::object& blocks, bool has_float64);
bool all_finite(py::handle grads, double scale);

}  // namespace fast_momentum
