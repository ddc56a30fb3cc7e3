// The contract between the kernels, compiled once per instruction set, and the rest, compiled once.
// Plain data only: a function body in here would be compiled under several instruction sets, and the linker
// would keep one of them for every CPU.
#pragma once

#include <cstddef>

#include "kernels/formulas.hpp"

namespace fast_momentum {

// The dtypes that arrays are worked on in. Complex numbers are pairs of reals, which is all that kernels see.
enum class Dtype : unsigned char { float32, float64, complex64, complex128 };
constexpr unsigned n_dtypes = 4;

// As what an array lies in memory: as one of the storages of what is worked on in float32, as the dtype that
// it is worked on in, or not at all.
enum class Stored : unsigned char { float16, bfloat16, int8, native, absent };
constexpr unsigned n_storages = unsigned(Stored::native);

// A kernel works on n consecutive elements of three disjoint arrays, its operands:
//     step        param, grad, velocity    writes param and velocity
//     lookahead   out, param, velocity     writes out
constexpr unsigned n_operands = 3;

using Kernel = void (*)(char* first, const char* second, char* third, std::size_t n,
                        const Coefficients& coefficients) noexcept;

// The step of a formula that is not plain. `slots` are those that the rule keeps, in their order.
using UpdateKernel = void (*)(char* param, const char* grad, char* const* slots, std::size_t n,
                              const Coefficients& coefficients) noexcept;

// What becomes of a gradient before the rule sees it: coefficient * (scale*grad, held within +-bound).
struct Preparation {
    double scale, coefficient, bound;
};

// The stages of a whole update, for a block of n elements in the dtype that is worked in. Their operands are
// dense and disjoint.
struct Stages {
    void (*prepare)(char* out, const char* grad, std::size_t n, const Preparation& preparation) noexcept;
    // The step, but for its last line: `displacement` is what it takes from the parameters.
    void (*displace[n_variants])(const char* param, const char* grad, char* const* slots, char* displacement,
                                 std::size_t n, const Coefficients& coefficients) noexcept;
    // displacement = displacement + compensation
    void (*add)(char* displacement, const char* compensation, std::size_t n) noexcept;
    // difference = param - displacement
    void (*subtract)(char* difference, const char* param, const char* displacement, std::size_t n) noexcept;
    // compensation = (after - before) + displacement
    void (*compensate)(char* compensation, const char* after, const char* before, const char* displacement,
                       std::size_t n) noexcept;
    // The soft threshold, sign(x)*max(|x| - threshold, 0), and then the box from lower to upper; NaN stays.
    void (*proximal)(char* values, std::size_t n, double threshold, double lower, double upper) noexcept;
    // An accelerated step to `found`: param = found + carried*(found - previous), iterate = found. `previous`
    // is what the iterate was, or `param` itself.
    void (*advance)(char* param, const char* found, const char* previous, char* iterate, std::size_t n,
                    double carried) noexcept;
    // The sum of (param - found)*(found - previous) in double, in the order of squares().
    double (*alignment)(const char* param, const char* found, const char* previous, std::size_t n) noexcept;
    void (*average)(char* average, const char* param, std::size_t n, double decay) noexcept;
    bool (*finite)(const char* grad, std::size_t n, double scale) noexcept;  // scale*grad is, everywhere
    // The sum of (factor*scale*grad)**2 in double, in an order of its own; factor is a power of two.
    double (*squares)(const char* grad, std::size_t n, double scale, double factor) noexcept;
};

struct DtypeKernels {
    Dtype place;
    const char* name;
    int number;                 // numpy.dtype.num
    std::size_t itemsize;       // of a real
    unsigned reals;             // in an element
    double (*rounded)(double);  // to a real of this dtype and back
    Kernel step[n_plain_variants];
    Kernel lookahead;
    UpdateKernel update[n_whole_variants - n_plain_variants];
    Stages stages;
};

// As a Kernel; velocities lie in memory in another way, perhaps with scales.
using NarrowKernel = void (*)(char* param, const char* grad, char* velocity, float* scales, std::size_t n,
                              const Coefficients& coefficients) noexcept;

// How numbers that are worked on in float32 can lie in memory.
using Dither = void (*)(float* values, std::size_t n, std::uint32_t part) noexcept;

struct Storage {
    Stored place;
    const char* name;
    std::size_t itemsize;
    bool has_scales;  // one for each scale_block elements, counted from the first one of an array
    void (*load)(float* to, const char* from, const float* scales, std::size_t n) noexcept;
    void (*store)(char* to, float* scales, const float* from, std::size_t n) noexcept;
    // Values that are not negative become the number below or above that store() can keep: the one above
    // where what is lost, in 65536ths of the way there, and `part` are 65536 or more. Over many parts then,
    // what rounding adds is what it takes, however small their changes. None but 0 becomes 0, as steps are
    // divided by their roots. nullptr where there are no such numbers.
    Dither dither;
    // Of velocities that lie so, with gradients in float32 and with gradients that lie so too.
    NarrowKernel step[n_plain_variants], step_alike[n_plain_variants];
    // Of slots that lie so, with gradients in float32; nullptr where these are loaded and stored apart.
    UpdateKernel update[n_whole_variants - n_plain_variants];
};

constexpr std::size_t scale_block = 256;

struct Kernels {
    const char* flags;  // that they were compiled with
    DtypeKernels dtypes[n_dtypes];
    Storage storages[n_storages];
};

}  // namespace fast_momentum
