// Leaves -> checked raw slices: what the arrays of a call must be, one by one and then together. Never writes
// to an array.
#pragma once

#include <array>
#include <deque>
#include <vector>

#include "plain/norm.hpp"
#include "plain/overlap.hpp"
#include "plain/run.hpp"
#include "python/arrays.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// What a call works on, and the memory that checking it takes. Reused from step to step.
struct Call {
    Leaves params, partners;  // the gradients, or the arrays that lookahead() writes
    Work work;
    Norm norm;                                  // of the gradients
    std::deque<std::array<double, 2>> scalars;  // gradients that are NumPy scalars, complex ones at most
    std::deque<std::vector<std::ptrdiff_t>> strides;  // in reals, of complex arrays
    std::vector<char*> candidates;  // of each array, where the user's own proximal map has a say
    bool has_rest = false;          // norm, scalars or strides
    Bounds bounds;

    void clear();
};

// Of `leaves`, those of `tree`, which must be arrays of a dtype that can be worked on.
Params checked_params(Tree tree, const Leaves& leaves);

// `array`, to be copied into the memory of array i, must have its shape and the dtype that it is worked on
// in.
void check_loaded(const Tree& tree, const Arrays& arrays, std::size_t i, py::handle array,
                  const std::string& path);

// The constants of every array of a call: for each array, or for all of them, those of its first step and
// those of the others.
struct Constants {
    std::vector<Coefficients> table;
    std::size_t stride;  // from array to array; 0 where all have the same

    const Coefficients* of(std::size_t i, long long steps) const { return &table[stride * i + (steps != 0)]; }
};

// What is asked about a call once, and not again for each array.
struct Plan {
    bool slices = false;  // an array whose gradient is stored as it is worked on needs no more than a slice
    bool plain = false;   // nor is anything looked at beforehand

    Plan() = default;
    Plan(const Kept& kept, const Pass& pass)
        : slices(kept.is_plain() && pass.is_bare()), plain(slices && !pass.looks_first()) {}
};

// Check call.params and call.partners and fill call.work, whose pass is set.
// `steps` are those that each array has made.
void check_step(const Kept& kept, const Constants& constants, const std::vector<long long>& steps,
                const Plan& plan, Call& call);
void check_lookahead(const Kept& kept, const Constants& constants, Call& call);
// Of call.params alone, which are `written`, or only read.
void check_params(const Kept& kept, Call& call, bool written);

// A new array of the dtype of `param` and in the order of array i; None where `param` is no array, as only a
// check is to say.
py::object empty_like(const Kept& kept, std::size_t i, py::handle param);

// Adds the leaves of `grads`, of any shapes and layouts, but for None.
void check_norm(const Tree& tree, const Leaves& grads, Norm& norm);

}  // namespace fast_momentum
