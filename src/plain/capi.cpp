#include "plain/capi.hpp"

#include <cstddef>
#include <cstdint>

#include "plain/isa.hpp"
#include "plain/limits.hpp"
#include "plain/rules.hpp"

namespace fast_momentum {

namespace {

constexpr int all_flags = FAST_MOMENTUM_NESTEROV | FAST_MOMENTUM_DECOUPLED_WEIGHT_DECAY |
                          FAST_MOMENTUM_MAXIMIZE | FAST_MOMENTUM_FIRST;

const DtypeKernels* kernels_of(int dtype) {
    for (const DtypeKernels& row : isa_in_use().kernels->dtypes)
        if (row.number == dtype) return &row;
    return nullptr;
}

const Rule* rule_of(int form) {
    return form >= 0 && form <= FAST_MOMENTUM_EMA ? &all_rules()[unsigned(form)] : nullptr;
}

bool is_good(Setting::Name name, const Values& values, const DtypeKernels& dtype) {
    const Range& range = all_settings[name].range;
    return range.contains(values[name]) && !missed_rounding(range, values[name], dtype);
}

int check_numbers(const Rule& rule, const Values& h, const DtypeKernels& dtype) {
    if (!is_good(Setting::lr, h, dtype)) return FAST_MOMENTUM_BAD_LR;
    if (!is_good(Setting::momentum, h, dtype)) return FAST_MOMENTUM_BAD_MOMENTUM;
    if (!is_good(Setting::dampening, h, dtype)) return FAST_MOMENTUM_BAD_DAMPENING;
    if (h[Setting::dampening] != 0 && (!rule.takes_setting(Setting::dampening) || excludes_dampening(h)))
        return FAST_MOMENTUM_BAD_DAMPENING;
    if (!is_good(Setting::weight_decay, h, dtype)) return FAST_MOMENTUM_BAD_WEIGHT_DECAY;
    if (h[Setting::decoupled_weight_decay] && missed_product(h[Setting::lr], h[Setting::weight_decay], dtype))
        return FAST_MOMENTUM_BAD_PRODUCT;
    return FAST_MOMENTUM_OK;
}

struct Memory {
    const void* data;
    bool written;
};

// No memory has more, whatever the dtype.
constexpr std::int64_t most_elements = PTRDIFF_MAX / 16;

// Without a division, which would take as long as the step of a small array.
bool is_aligned(const void* data, std::size_t itemsize) {
    return (reinterpret_cast<std::uintptr_t>(data) & (itemsize - 1)) == 0;
}

int check_memory(const Memory (&arrays)[n_operands], std::int64_t n, const DtypeKernels& dtype) {
    if (n < 0 || n > most_elements) return FAST_MOMENTUM_BAD_LENGTH;
    if (n == 0) return FAST_MOMENTUM_OK;
    for (const Memory& array : arrays)
        if (!array.data) return FAST_MOMENTUM_NULL_POINTER;
    for (const Memory& array : arrays)
        if (!is_aligned(array.data, dtype.itemsize)) return FAST_MOMENTUM_MISALIGNED;
    const std::uintptr_t bytes = std::uintptr_t(n) * dtype.itemsize;
    for (unsigned i = 0; i < n_operands; ++i)
        for (unsigned j = 0; j < i; ++j) {
            const auto a = reinterpret_cast<std::uintptr_t>(arrays[i].data);
            const auto b = reinterpret_cast<std::uintptr_t>(arrays[j].data);
            if ((arrays[i].written || arrays[j].written) && (a < b ? b - a : a - b) < bytes)
                return FAST_MOMENTUM_OVERLAP;
        }
    return FAST_MOMENTUM_OK;
}

int step(int dtype, void* param, const void* grad, void* velocity, std::int64_t n, int form, int flags,
         double lr, double momentum, double dampening, double weight_decay) noexcept {
    const DtypeKernels* kernels = kernels_of(dtype);
    if (!kernels) return FAST_MOMENTUM_BAD_DTYPE;
    const Rule* rule = rule_of(form);
    if (!rule) return FAST_MOMENTUM_BAD_FORM;
    if (flags & ~all_flags) return FAST_MOMENTUM_BAD_FLAGS;
    Values values{};
    values[Setting::lr] = lr;
    values[Setting::momentum] = momentum;
    values[Setting::dampening] = dampening;
    values[Setting::weight_decay] = weight_decay;
    values[Setting::nesterov] = (flags & FAST_MOMENTUM_NESTEROV) != 0;
    values[Setting::decoupled_weight_decay] = (flags & FAST_MOMENTUM_DECOUPLED_WEIGHT_DECAY) != 0;
    values[Setting::maximize] = (flags & FAST_MOMENTUM_MAXIMIZE) != 0;
    if (const int code = check_numbers(*rule, values, *kernels)) return code;
    if (const int code = check_memory({{param, true}, {grad, false}, {velocity, true}}, n, *kernels))
        return code;
    const Coefficients constants = coefficients(*rule, values, (flags & FAST_MOMENTUM_FIRST) ? 0 : 1);
    kernels->step[constants.variant](static_cast<char*>(param), static_cast<const char*>(grad),
                                     static_cast<char*>(velocity), static_cast<std::size_t>(n), constants);
    return FAST_MOMENTUM_OK;
}

template <class T, int dtype>
int typed_step(T* param, const T* grad, T* velocity, std::int64_t n, int form, int flags, double lr,
               double momentum, double dampening, double weight_decay) noexcept {
    return step(dtype, param, grad, velocity, n, form, flags, lr, momentum, dampening, weight_decay);
}

int lookahead(int dtype, void* out, const void* param, const void* velocity, std::int64_t n, int form,
              double lr, double momentum) noexcept {
    const DtypeKernels* kernels = kernels_of(dtype);
    if (!kernels) return FAST_MOMENTUM_BAD_DTYPE;
    const Rule* rule = rule_of(form);
    if (!rule) return FAST_MOMENTUM_BAD_FORM;
    Values values{};
    values[Setting::lr] = lr;
    values[Setting::momentum] = momentum;
    if (const int code = check_numbers(*rule, values, *kernels)) return code;
    if (rule->ahead == Rule::lr_momentum && missed_product(lr, momentum, *kernels))
        return FAST_MOMENTUM_BAD_PRODUCT;
    if (const int code = check_memory({{out, true}, {param, false}, {velocity, false}}, n, *kernels))
        return code;
    const Coefficients constants = coefficients(*rule, values, 1);
    kernels->lookahead(static_cast<char*>(out), static_cast<const char*>(param),
                       const_cast<char*>(static_cast<const char*>(velocity)), static_cast<std::size_t>(n),
                       constants);
    return FAST_MOMENTUM_OK;
}

template <class T, int dtype>
int typed_lookahead(T* out, const T* param, const T* velocity, std::int64_t n, int form, double lr,
                    double momentum) noexcept {
    return lookahead(dtype, out, param, velocity, n, form, lr, momentum);
}

// By code.
constexpr const char* messages[] = {
    "ok",
    "dtype must be FAST_MOMENTUM_FLOAT32 or FAST_MOMENTUM_FLOAT64",
    "form must be FAST_MOMENTUM_LR_OUTSIDE, FAST_MOMENTUM_LR_INSIDE or FAST_MOMENTUM_EMA",
    "flags must have no other bits than those of fast_momentum.h",
    "lr must be finite and >= 0, stay so when rounded to dtype, and not vanish by it",
    "momentum must be in [0, 1), stay so when rounded to dtype, and not vanish by it",
    "dampening must be in [0, 1], not vanish when rounded to dtype, and be 0 with nesterov, and in another "
    "form than lr_outside",
    "weight_decay must be finite and >= 0, stay so when rounded to dtype, and not vanish by it",
    "lr * weight_decay of a decoupled decay, and lr * momentum of a look-ahead, must stay finite when "
    "rounded to dtype, and not vanish by it",
    "n must be >= 0, and so many elements must fit into memory",
    "pointers must not be null where n is above 0",
    "addresses must be multiples of the size of an element",
    "an array that is written must share no memory with another one",
};

const char* message(int code) noexcept {
    const bool known = code >= 0 && code < int(sizeof messages / sizeof *messages);
    return known ? messages[code] : "no code of fast_momentum";
}

constexpr auto step_float32 = typed_step<float, FAST_MOMENTUM_FLOAT32>;
constexpr auto step_float64 = typed_step<double, FAST_MOMENTUM_FLOAT64>;
constexpr auto lookahead_float32 = typed_lookahead<float, FAST_MOMENTUM_FLOAT32>;
constexpr auto lookahead_float64 = typed_lookahead<double, FAST_MOMENTUM_FLOAT64>;

}  // namespace

const fast_momentum_api c_api = {
    FAST_MOMENTUM_ABI_VERSION, sizeof(fast_momentum_api), step_float32, step_float64, step,
    lookahead_float32,         lookahead_float64,         lookahead,    message,
};

const CythonFunction cython_functions[n_cython_functions] = {
    {"step_float32",
     "int (float *, float const *, float *, int64_t, int, int, double, double, double, double)",
     reinterpret_cast<void*>(step_float32)},
    {"step_float64",
     "int (double *, double const *, double *, int64_t, int, int, double, double, double, double)",
     reinterpret_cast<void*>(step_float64)},
    {"step", "int (int, void *, void const *, void *, int64_t, int, int, double, double, double, double)",
     reinterpret_cast<void*>(step)},
    {"lookahead_float32", "int (float *, float const *, float const *, int64_t, int, double, double)",
     reinterpret_cast<void*>(lookahead_float32)},
    {"lookahead_float64", "int (double *, double const *, double const *, int64_t, int, double, double)",
     reinterpret_cast<void*>(lookahead_float64)},
    {"lookahead", "int (int, void *, void const *, void const *, int64_t, int, double, double)",
     reinterpret_cast<void*>(lookahead)},
    {"message", "char const *(int)", reinterpret_cast<void*>(message)},
};

}  // namespace fast_momentum
