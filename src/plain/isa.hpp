// Which kernel tables this build has and this CPU can run, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace fast_momentum {

struct Isa {
    const char* name;
    const Kernels* kernels;
    bool found;     // this CPU can run it
    bool disabled;  // by FAST_MOMENTUM_DISABLE_CPU_FEATURES
};

// From the slowest, the baseline, to the fastest.
const std::vector<Isa>& isas();

// Take instruction sets away, given as in NPY_DISABLE_CPU_FEATURES: names separated by commas or blanks.
// Returns the names that cannot be disabled. For the import, when no other thread is here.
std::vector<std::string> disable_isas(const std::string& names);

const Isa& isa_in_use();
inline const DtypeKernels& dtype_kernels(Dtype dtype) {
    return isa_in_use().kernels->dtypes[unsigned(dtype)];
}

// The row, or nullptr.
inline const Storage* storage_of(Stored stored) {
    const auto row = static_cast<unsigned>(stored);
    return row < n_storages ? &isa_in_use().kernels->storages[row] : nullptr;
}

// Returns false, and changes nothing, where this CPU cannot run `name`.
bool use_isa(const std::string& name);

}  // namespace fast_momentum
