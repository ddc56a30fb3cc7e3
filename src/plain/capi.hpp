// The functions for C and Cython: codes instead of exceptions, no Python. fast_momentum.h has the contract.
#pragma once

#include <fast_momentum.h>

namespace fast_momentum {

extern const fast_momentum_api c_api;
extern const fast_momentum_api c_api_1;  // what programs of ABI 1 know of it

// As cython_momentum.pxd declares it; a program that does not agree about the signature cannot be imported.
struct CythonFunction {
    const char* name;
    const char* signature;  // in Cython's spelling
    void* function;

    template <class Function>
    CythonFunction(const char* name, const char* signature, Function* function)
        : name(name), signature(signature), function(reinterpret_cast<void*>(function)) {}
};
constexpr unsigned n_cython_functions = 9;
extern const CythonFunction cython_functions[n_cython_functions];

}  // namespace fast_momentum
