// Leaves -> checked raw slices. The home of the error messages about arrays; never writes to an array.
#pragma once

#include <pybind11/numpy.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "plain/norm.hpp"
#include "plain/overlap.hpp"
#include "plain/run.hpp"
#include "python/arrays.hpp"
#include "python/options.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// What a call works on, and the memory that checking it takes. Reused from step to step.
struct Call {
    Leaves params, others;  // others: the gradients, or the arrays that lookahead() writes
    Work work;
    Norm norm;                   // of the gradients
    std::deque<double> scalars;  // gradients that are NumPy scalars
    Bounds bounds;

    void clear();
};

// To be called once, when the module is imported.
void find_numpy_types();

// Of `params`, which must be arrays of a dtype that can be worked on: in which dtype that is done, and as
// what they are stored.
struct ParamDtypes {
    std::vector<unsigned char> dtypes;
    std::vector<Stored> stored;
};
ParamDtypes checked_dtypes(const Tree& tree, const Leaves& params);

// `array`, to be copied into the memory of array i, must have its shape and the dtype that it is worked on
// in.
void check_loaded(const Tree& tree, const Arrays& arrays, std::size_t i, py::handle array,
                  const std::string& path);

// The constants of every array of a call: for each array, or for all of them, those of its first step and
// those of the others.
struct Constants {
    std::vector<Coefficients> table;
    std::size_t stride;  // from array to array; 0 where all have the same

    const Coefficients* of(std::size_t i, bool started) const { return &table[stride * i + started]; }
};

// What a step does to gradients beyond the rule, as far as the checks must know it.
struct Request {
    bool needs_norm = false;  // or must know at least whether they are finite
    std::optional<double> clip_norm;
    Nonfinite nonfinite = Nonfinite::propagate;
    Pass pass;
    bool is_plain = true;  // nothing beyond the rule, and no narrow storage but of gradients
};

// Check call.params and call.others and fill call.work. `tree` is for the messages.
void check_step(const Tree& tree, const Kept& kept, const Constants& constants,
                const std::vector<unsigned char>& started, const Request& request, Call& call);
void check_lookahead(const Tree& tree, const Kept& kept, const Constants& constants, Call& call);
// Of call.params alone.
void check_swap(const Tree& tree, const Kept& kept, Call& call);

// A new array of the dtype of `param` and in the order of array i; None where `param` is no array, as only a
// check is to say.
py::object empty_like(const Kept& kept, std::size_t i, py::handle param);

// Adds the leaves of `grads`, of any shapes and layouts, but for None.
void check_norm(const Tree& tree, const Leaves& grads, Norm& norm);

}  // namespace fast_momentum
