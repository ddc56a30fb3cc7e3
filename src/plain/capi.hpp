// The functions for C and Cython: codes instead of exceptions, no Python. fast_momentum.h has the contract.
#pragma once

#include <fast_momentum.h>

namespace fast_momentum {

extern const fast_momentum_api c_api;
extern const fast_momentum_api c_api_1;  // what programs of ABI 1 know of it

}  // namespace fast_momentum
