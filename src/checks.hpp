// Leaves -> checked raw slices. The home of the error messages about arrays; never writes to an array.
#pragma once

#include <pybind11/numpy.h>

#include <deque>
#include <string>
#include <vector>

#include "overlap.hpp"
#include "run.hpp"
#include "tree.hpp"
#include "velocities.hpp"

namespace fast_momentum {

// What a call works on, and the memory that checking it takes. Reused from step to step.
struct Call {
    Leaves params, others;  // others: the gradients, or the arrays that lookahead() writes
    Work work;
    std::deque<double> scalars;  // gradients that are NumPy scalars
    Bounds bounds;

    void clear();
};

// To be called once, when the module is imported.
void find_numpy_types();

// Numbers for the dtypes of `params`, which must be arrays of a dtype that there are kernels for.
std::vector<unsigned char> checked_dtypes(const Tree& tree, const Leaves& params);

// `array`, to be copied into velocity i, must have its shape and dtype.
void check_velocity(const Tree& tree, const Velocities& velocities, std::size_t i, py::handle array,
                    const std::string& path);

// The constants of every array of a call: for each array, or for all of them, those of its first step and
// those of the others.
struct Constants {
    std::vector<Coefficients> table;
    bool per_array;

    const Coefficients* of(std::size_t i, bool started) const {
        return &table[2 * (per_array ? i : 0) + started];
    }
};

// Check call.params and call.others and fill call.work. `tree` is for the messages.
void check_step(const Tree& tree, const Velocities& velocities, const Constants& constants,
                const std::vector<unsigned char>& started, Call& call);
void check_lookahead(const Tree& tree, const Velocities& velocities, const Constants& constants, Call& call);

}  // namespace fast_momentum
