// No array that is written may share memory with another one.
#pragma once

#include <string>

#include "plain/overlap.hpp"
#include "plain/work.hpp"
#include "python/arrays.hpp"

namespace fast_momentum {

// What an array is in a call. `values` are those of gradients of some rows.
enum class Role { params, grads, values, out };

constexpr bool is_gradient(Role role) {
    return role == Role::grads || role == Role::values;
}
constexpr const char* name_of(Role role) {
    return role == Role::params ? "params" : role == Role::out ? "out" : "grads";
}
// Follows the place of a leaf.
constexpr const char* part_of(Role role) {
    return role == Role::values ? ".values" : "";
}

// Which arrays a call writes.
struct Written {
    bool params, partners, velocity, average;

    bool slot(Slot::Name name) const { return name == Slot::average ? average : velocity; }
};

// The elements of an array that is worked on in `dtype`.
Region region_of(PyObject* array, const DtypeKernels& dtype, bool written);

// One array that is written may not have elements that share memory. `path` says where it is.
void check_own_elements(const Region& elements, const std::string& path);

// Of arrays whose bounds meet, with `partners` of that role beside params, if there are some: throws where
// they overlap, or where that they do not cannot be proved.
void check_disjoint(const Kept& kept, const Leaves& params, const Leaves& partners, Role role,
                    const Written& written);

}  // namespace fast_momentum
