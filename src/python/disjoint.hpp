// No array that is written may share memory with another one.
#pragma once

#include <string>

#include "plain/overlap.hpp"
#include "plain/work.hpp"
#include "python/arrays.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// What the second container of a call is.
enum class Others { none, grads, out };

constexpr const char* name_of(Others others) {
    return others == Others::out ? "out" : "grads";
}

// Which arrays a call writes.
struct Written {
    bool params, others, velocity, average;

    bool slot(Slot::Name name) const { return name == Slot::average ? average : velocity; }
};

// The elements of an array that is worked on in `dtype`.
Region region_of(PyObject* array, const DtypeKernels& dtype, bool written);

// One array that is written may not have elements that share memory. `path` says where it is.
void check_own_elements(const Region& elements, const std::string& path);

// Of arrays whose bounds meet: throws where they overlap, or where that they do not cannot be proved.
void check_disjoint(const Tree& tree, const Kept& kept, const Leaves& params, const Leaves& others,
                    Others others_are, const Written& written);

}  // namespace fast_momentum
