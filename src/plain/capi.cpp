#include "plain/capi.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "plain/arithmetic.hpp"
#include "plain/isa.hpp"
#include "plain/limits.hpp"
#include "plain/rules.hpp"

namespace fast_momentum {

namespace {

using CSettings = fast_momentum_settings;
using AdamSettings = fast_momentum_adam_settings;

struct Code {
    const char* message;
    Setting::Name setting = Setting::n;  // the number that it is about
    // And what that is in each struct.
    std::tuple<double CSettings::*, double AdamSettings::*> members = {};

    template <class Given>
    constexpr double Given::* member() const {
        return std::get<double Given::*>(members);
    }
};

// By code.
constexpr Code codes[] = {
    {"ok"},
    {"dtype must be FAST_MOMENTUM_FLOAT32 or FAST_MOMENTUM_FLOAT64"},
    {"form must be FAST_MOMENTUM_LR_OUTSIDE, FAST_MOMENTUM_LR_INSIDE or FAST_MOMENTUM_EMA, and of adam one "
     "that begins with FAST_MOMENTUM_ADAM; rule must be one of the former or FAST_MOMENTUM_QHM, and one with "
     "a look-ahead where that is called for"},
    {"flags must have no other bits than those of fast_momentum.h that have a meaning in the call"},
    {"lr must be finite and >= 0, stay so when rounded to dtype, and not vanish by it",
     Setting::lr,
     {&CSettings::lr, &AdamSettings::lr}},
    {"momentum must be in [0, 1), stay so when rounded to dtype, and not vanish by it",
     Setting::momentum,
     {&CSettings::momentum, nullptr}},
    {"dampening must be in [0, 1], not vanish when rounded to dtype, and be 0 with nesterov, and in another "
     "form than lr_outside",
     Setting::dampening,
     {&CSettings::dampening, nullptr}},
    {"weight_decay must be finite and >= 0, stay so when rounded to dtype, and not vanish by it",
     Setting::weight_decay,
     {&CSettings::weight_decay, &AdamSettings::weight_decay}},
    {"lr * weight_decay of a decoupled decay, lr * momentum of a look-ahead, and lr with the correction of a "
     "step of adam, must stay finite when rounded to dtype, and not vanish by it"},
    {"n must be >= 0, and so many elements must fit into memory"},
    {"pointers must not be null where n is above 0"},
    {"addresses must be multiples of the size of an element"},
    {"an array that is written must share no memory with another one"},
    {"nu must be in [0, 1], not vanish when rounded to dtype, and be 0 in another rule than qhm",
     Setting::nu,
     {&CSettings::nu, nullptr}},
    {"settings must not be null, and must have their size, steps in [0, 2**62), and 0 beyond what is known "
     "here"},
    {"beta1 must be in [0, 1), stay so when rounded to dtype, and not vanish by it",
     Setting::beta1,
     {nullptr, &AdamSettings::beta1}},
    {"beta2 must be in [0, 1), stay so when rounded to dtype, and not vanish by it",
     Setting::beta2,
     {nullptr, &AdamSettings::beta2}},
    {"eps must be finite and >= 0, stay so when rounded to dtype, and not vanish by it",
     Setting::eps,
     {nullptr, &AdamSettings::eps}},
    {"second_moment_maximum must be null without FAST_MOMENTUM_AMSGRAD"},
};

struct Flag {
    int bit;
    Setting::Name setting;
    bool of_momentum = true;  // of one rule at least
};

constexpr Flag flags[] = {
    {FAST_MOMENTUM_NESTEROV, Setting::nesterov},
    {FAST_MOMENTUM_DECOUPLED_WEIGHT_DECAY, Setting::decoupled_weight_decay},
    {FAST_MOMENTUM_MAXIMIZE, Setting::maximize},
    {FAST_MOMENTUM_AMSGRAD, Setting::amsgrad, false},
};

template <class Given>
constexpr bool each_number_has_its_code() {
    std::size_t found = 0;
    for (const Code& code : codes) found += code.member<Given>() != nullptr;
    return sizeof(Given) == offsetof(Given, lr) + found * sizeof(double);
}
static_assert(each_number_has_its_code<CSettings>() && each_number_has_its_code<AdamSettings>());

const DtypeKernels* kernels_of(int dtype) {
    for (const DtypeKernels& row : isa_in_use().kernels->dtypes)
        if (row.number == dtype && row.reals == 1) return &row;
    return nullptr;
}

// Each number for itself. A loop over the codes is shorter, and makes a call take 14 ns more.
template <int code = 0, class Given>
int read_numbers(const Given& given, const Rule& rule, const DtypeKernels& dtype, Values& values) {
    if constexpr (code < std::size(codes)) {
        constexpr Code row = codes[code];
        constexpr double Given::* member = row.template member<Given>();
        if constexpr (member != nullptr) {
            const Range& range = all_settings[row.setting].range;
            const double value = values[row.setting] = given.*member;
            if (rule.takes_setting(row.setting) ? !range.contains(value) : value != 0) return code;
            if (value != 0 && missed_rounding(range, value, dtype)) return code;
        }
        return read_numbers<code + 1>(given, rule, dtype, values);
    }
    return FAST_MOMENTUM_OK;
}

template <class Given>
int read(const Given& given, const Rule& rule, const DtypeKernels& dtype, Values& values) {
    if (given.steps < 0 || given.steps >= most_count) return FAST_MOMENTUM_BAD_SETTINGS;
    std::int64_t left = given.flags;
    for (const auto& [bit, setting, of_momentum] : flags)
        if ((of_momentum || std::is_same_v<Given, AdamSettings>) && rule.takes_setting(setting)) {
            values[setting] = (left & bit) != 0;
            left &= ~bit;
        }
    if (left) return FAST_MOMENTUM_BAD_FLAGS;
    if (const int code = read_numbers(given, rule, dtype, values)) return code;
    if (values[Setting::dampening] != 0 && excludes_dampening(values)) return FAST_MOMENTUM_BAD_DAMPENING;
    if (values[Setting::decoupled_weight_decay] && missed_product(given.lr, given.weight_decay, dtype))
        return FAST_MOMENTUM_BAD_PRODUCT;
    return FAST_MOMENTUM_OK;
}

// No memory has more, whatever the dtype.
constexpr std::int64_t most_elements = PTRDIFF_MAX / 16;

// Of the arrays of a look-ahead, only the first is written; of those of a step, all but one.
template <unsigned count>
int check_memory(const void* const (&arrays)[count], bool ahead, std::int64_t n, const DtypeKernels& dtype) {
    if (n < 0 || n > most_elements) return FAST_MOMENTUM_BAD_LENGTH;
    for (unsigned i = 0; n > 0 && i < count; ++i) {
        const auto a = reinterpret_cast<std::uintptr_t>(arrays[i]);
        if (!a) return FAST_MOMENTUM_NULL_POINTER;
        // Without a division, which would take as long as the step of a small array.
        if (a & (dtype.itemsize - 1)) return FAST_MOMENTUM_MISALIGNED;
        for (unsigned j = 0; j < (ahead ? std::min(i, 1u) : i); ++j) {
            const auto b = reinterpret_cast<std::uintptr_t>(arrays[j]);
            if ((a < b ? b - a : a - b) < std::uintptr_t(n) * dtype.itemsize) return FAST_MOMENTUM_OVERLAP;
        }
    }
    return FAST_MOMENTUM_OK;
}

// A step if the third array is written, else a look-ahead.
template <class Third>
int run(const CSettings& given, int dtype, void* first, const void* second, Third* third, std::int64_t n) {
    constexpr bool ahead = std::is_const_v<Third>;
    const StandardArithmetic arithmetic;
    const DtypeKernels* kernels = kernels_of(dtype);
    if (!kernels) return FAST_MOMENTUM_BAD_DTYPE;
    if (unsigned(given.rule) > FAST_MOMENTUM_QHM)
        return FAST_MOMENTUM_BAD_FORM;  // the last of these settings
    const Rule& rule = all_rules()[unsigned(given.rule)];
    if (ahead && rule.ahead == Rule::none) return FAST_MOMENTUM_BAD_FORM;
    if (ahead && (given.flags & FAST_MOMENTUM_NESTEROV)) return FAST_MOMENTUM_BAD_FLAGS;
    Values values{};
    if (const int code = read(given, rule, *kernels, values)) return code;
    if (ahead && rule.ahead == Rule::lr_momentum && missed_product(given.lr, given.momentum, *kernels))
        return FAST_MOMENTUM_BAD_PRODUCT;
    if (const int code = check_memory({first, second, third}, ahead, n, *kernels)) return code;
    const Coefficients constants = coefficients(rule, values, {given.steps});
    const Kernel kernel = ahead ? kernels->lookahead : kernels->step[constants.variant];
    kernel(static_cast<char*>(first), static_cast<const char*>(second),
           static_cast<char*>(const_cast<void*>(third)), static_cast<std::size_t>(n), constants);
    return FAST_MOMENTUM_OK;
}

int run_adam(const AdamSettings& given, int dtype, void* param, const void* grad, void* velocity,
             void* second_moment, void* maximum, std::int64_t n) {
    const StandardArithmetic arithmetic;
    const DtypeKernels* kernels = kernels_of(dtype);
    if (!kernels) return FAST_MOMENTUM_BAD_DTYPE;
    if (given.form < FAST_MOMENTUM_ADAM_CORRECTED || given.form > FAST_MOMENTUM_ADAM_UNCORRECTED)
        return FAST_MOMENTUM_BAD_FORM;
    const Rule& rule = all_rules()[unsigned(given.form)];
    Values values{};
    if (const int code = read(given, rule, *kernels, values)) return code;
    const Coefficients constants = coefficients(rule, values, {given.steps});
    if (missed(given.lr != 0, kernels->rounded(constants.scale))) return FAST_MOMENTUM_BAD_PRODUCT;
    const bool has_maximum = values[Setting::amsgrad] != 0;
    if (n > 0 && maximum && !has_maximum) return FAST_MOMENTUM_BAD_MAXIMUM;
    if (const int code =
            has_maximum ? check_memory({param, grad, velocity, second_moment, maximum}, false, n, *kernels)
                        : check_memory({param, grad, velocity, second_moment}, false, n, *kernels))
        return code;
    char* const slots[] = {static_cast<char*>(velocity), static_cast<char*>(second_moment),
                           static_cast<char*>(maximum)};
    kernels->update[constants.variant - n_plain_variants](static_cast<char*>(param),
                                                          static_cast<const char*>(grad), slots,
                                                          static_cast<std::size_t>(n), constants);
    return FAST_MOMENTUM_OK;
}

// The settings may come from a program that was compiled with another header: run(settings), with those that
// are known here.
template <std::size_t oldest_size, class Given, class Run>
int with_known(const Given* given, const Run& run) {
    if (!given || given->size < oldest_size || given->size % sizeof(double))
        return FAST_MOMENTUM_BAD_SETTINGS;
    if (given->size == sizeof(Given)) return run(*given);
    Given known{};
    const char *bytes = reinterpret_cast<const char*>(given), *end = bytes + given->size;
    const char* shared_end = bytes + std::min<std::size_t>(given->size, sizeof known);
    std::copy(bytes, shared_end, reinterpret_cast<char*>(&known));
    if (std::any_of(shared_end, end, [](char byte) { return byte != 0; })) return FAST_MOMENTUM_BAD_SETTINGS;
    return run(known);
}

template <class Third>
int run_with(const CSettings* given, int dtype, void* first, const void* second, Third* third,
             std::int64_t n) noexcept {
    return with_known<offsetof(CSettings, nu)>(
        given, [=](const CSettings& known) { return run(known, dtype, first, second, third, n); });
}

int adam(const AdamSettings* given, int dtype, void* param, const void* grad, void* velocity,
         void* second_moment, void* maximum, std::int64_t n) noexcept {
    return with_known<sizeof(AdamSettings)>(given, [=](const AdamSettings& known) {
        return run_adam(known, dtype, param, grad, velocity, second_moment, maximum, n);
    });
}

CSettings settings_of(int form, int flags, double lr, double momentum, double dampening,
                      double weight_decay) {
    CSettings given{};
    given.rule = form <= FAST_MOMENTUM_EMA ? form : -1;
    given.flags = flags & ~FAST_MOMENTUM_FIRST;
    given.steps = flags & FAST_MOMENTUM_FIRST ? 0 : 1;
    given.lr = lr;
    given.momentum = momentum;
    given.dampening = dampening;
    given.weight_decay = weight_decay;
    return given;
}

int step(int dtype, void* param, const void* grad, void* velocity, std::int64_t n, int form, int flags,
         double lr, double momentum, double dampening, double weight_decay) noexcept {
    return run(settings_of(form, flags, lr, momentum, dampening, weight_decay), dtype, param, grad, velocity,
               n);
}

int lookahead(int dtype, void* out, const void* param, const void* velocity, std::int64_t n, int form,
              double lr, double momentum) noexcept {
    return run(settings_of(form, 0, lr, momentum, 0, 0), dtype, out, param, velocity, n);
}

template <auto function, int dtype, class... Arguments>
int typed(Arguments... arguments) noexcept {
    return function(dtype, arguments...);
}

const char* message(int code) noexcept {
    return unsigned(code) < std::size(codes) ? codes[code].message : "no code of fast_momentum";
}

constexpr int float32 = FAST_MOMENTUM_FLOAT32, float64 = FAST_MOMENTUM_FLOAT64;

constexpr fast_momentum_api table(std::uint32_t first, std::int32_t second) {
    return {first,
            second,
            typed<step, float32>,
            typed<step, float64>,
            step,
            typed<lookahead, float32>,
            typed<lookahead, float64>,
            lookahead,
            message,
            run_with<void>,
            run_with<const void>,
            adam};
}

}  // namespace

const fast_momentum_api c_api = table(sizeof(fast_momentum_api), FAST_MOMENTUM_ABI_VERSION);
// There, the version comes before the size.
const fast_momentum_api c_api_1 = table(1, offsetof(fast_momentum_api, update));

}  // namespace fast_momentum
