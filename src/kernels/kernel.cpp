// The loops over elements and the table of kernels; compiled once per instruction set, into the namespace of
// that name. Includes no standard template and has no object that is built at run time: the linker would
// keep one copy of such code for all CPUs.
#include "kernels/compilers.hpp"
#include "kernels/kernels.hpp"
#include "kernels/stages.hpp"
#include "kernels/storage.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

// Both lines of a formula run over a block while it is in L1. In training loops that is up to 2 times as
// fast as one fused loop, elsewhere it differs little (docs/decisions.md).
constexpr std::size_t block_bytes = 2048;

constexpr unsigned formula_of(unsigned variant) {
    unsigned formula = 0;
    while (first_variant(formula + 1) <= variant) ++formula;
    return formula;
}

template <class T, unsigned variant>
using Variant =
    typename Code<formula_of(variant)>::template Of<T, variant - first_variant(formula_of(variant))>;

template <class T, class F>
inline void velocity_line(const F& formula, const T* RESTRICT param, const T* RESTRICT grad,
                          T* RESTRICT velocity, std::size_t n) noexcept {
    UNROLLED for (std::size_t i = 0; i < n; ++i) velocity[i] =
        formula.new_velocity(param[i], grad[i], velocity[i]);
}

template <class T, class F>
inline void param_line(const F& formula, T* RESTRICT param, const T* RESTRICT grad,
                       const T* RESTRICT velocity, std::size_t n) noexcept {
    UNROLLED for (std::size_t i = 0; i < n; ++i) param[i] = formula.new_param(param[i], grad[i], velocity[i]);
}

template <class T, unsigned variant>
void step(char* first, const char* second, char* third, std::size_t n, const Coefficients& c) noexcept {
    constexpr std::size_t block = block_bytes / sizeof(T);
    const Variant<T, variant> formula(c);
    T* param = reinterpret_cast<T*>(first);
    const T* grad = reinterpret_cast<const T*>(second);
    T* velocity = reinterpret_cast<T*>(third);
    for (std::size_t begin = 0; begin < n; begin += block) {
        const std::size_t length = n - begin < block ? n - begin : block;
        velocity_line(formula, param + begin, grad + begin, velocity + begin, length);
        param_line(formula, param + begin, grad + begin, velocity + begin, length);
    }
}

// The line that makes the velocities reads them as they are stored: a loop that only converts them would wait
// for memory, and the others would not.
template <unsigned variant, class Grad, class Velocity>
void narrow_step(char* param_, const char* grad_, char* velocity_, float* scales, std::size_t n,
                 const Coefficients& c) noexcept {
    constexpr std::size_t block = block_bytes / sizeof(float);
    static_assert(block % scale_block == 0, "scales must not be shared by two blocks");
    const Variant<float, variant> formula(c);
    alignas(64) float new_velocity[block];
    float* RESTRICT made = new_velocity;
    for (std::size_t first = 0; first < n; first += block) {
        const std::size_t length = n - first < block ? n - first : block;
        float* RESTRICT param = reinterpret_cast<float*>(param_) + first;
        const auto* RESTRICT grad = reinterpret_cast<const typename Grad::Item*>(grad_) + first;
        auto* RESTRICT velocity = reinterpret_cast<typename Velocity::Item*>(velocity_) + first;
        float* scale_of_block = scales ? scales + first / scale_block : nullptr;
        by_scale(scale_of_block, length, [&](std::size_t begin, std::size_t end, float scale) {
            for (std::size_t i = begin; i < end; ++i)
                made[i] = formula.new_velocity(param[i], Grad::value(grad[i], 0),
                                               Velocity::value(velocity[i], scale));
        });
        for (std::size_t i = 0; i < length; ++i)
            param[i] = formula.new_param(param[i], Grad::value(grad[i], 0), made[i]);
        Velocity::store(velocity, scale_of_block, made, length);
    }
}

template <class T, class Slots, unsigned variant>
void update(char* param_, const char* grad, char* const* slots, std::size_t n,
            const Coefficients& c) noexcept {
    T* param = reinterpret_cast<T*>(param_);
    Variant<T, variant>(c).run(
        Slots(c.dither), param, reinterpret_cast<const T*>(grad), slots, n,
        [=](std::size_t i, auto displacement) { param[i] = T(param[i] - displacement); });
}

template <class T, unsigned variant>
void displace(const char* param, const char* grad, char* const* slots, char* displacement, std::size_t n,
              const Coefficients& c) noexcept {
    T* RESTRICT out = reinterpret_cast<T*>(displacement);
    Variant<T, variant>(c).run(Native<T>(0), reinterpret_cast<const T*>(param),
                               reinterpret_cast<const T*>(grad), slots, n,
                               [=](std::size_t i, auto taken) { out[i] = T(taken); });
}

template <class T>
void lookahead(char* first, const char* second, char* third, std::size_t n, const Coefficients& c) noexcept {
    const T ahead = T(c.ahead);
    T* RESTRICT out = reinterpret_cast<T*>(first);
    const T* RESTRICT param = reinterpret_cast<const T*>(second);
    const T* RESTRICT velocity = reinterpret_cast<const T*>(third);
    for (std::size_t i = 0; i < n; ++i) out[i] = param[i] - ahead * velocity[i];
}

template <class T>
double rounded(double value) {
    return double(T(value));
}

template <unsigned... variants>
struct Pack {};

// Those from `first` to before n.
template <unsigned first, unsigned n, unsigned... variants>
struct From : From<first, n - 1, n - 1, variants...> {};
template <unsigned first, unsigned... variants>
struct From<first, first, variants...> {
    using Variants = Pack<variants...>;
};
constexpr typename From<0, n_variants>::Variants all;
constexpr typename From<0, n_plain_variants>::Variants all_plain;
constexpr typename From<n_plain_variants, n_whole_variants>::Variants all_others;

template <class T, unsigned... plain, unsigned... others, unsigned... any>
constexpr DtypeKernels dtype(Dtype place, const char* name, int number, unsigned reals, Pack<plain...>,
                             Pack<others...>, Pack<any...>) {
    return {place,
            name,
            number,
            sizeof(T),
            reals,
            rounded<T>,
            {step<T, plain>...},
            lookahead<T>,
            {update<T, Native<T>, others>...},
            {prepare<T>,
             {displace<T, any>...},
             add<T>,
             subtract<T>,
             compensate<T>,
             proximal<T>,
             advance<T>,
             alignment<T>,
             average<T>,
             finite<T>,
             squares<T>}};
}

template <class Narrow, unsigned variant>
constexpr UpdateKernel narrow_update() {
    if constexpr (Narrow::in_one_loop)
        return update<float, Narrowed<Narrow>, variant>;
    else
        return nullptr;
}

template <class Narrow, class Alike, unsigned... plain, unsigned... others>
constexpr Storage storage(Stored place, const char* name, bool has_scales, Pack<plain...>, Pack<others...>) {
    return {place,
            name,
            sizeof(typename Narrow::Item),
            has_scales,
            load<Narrow>,
            store<Narrow>,
            dithers<Narrow>(),
            {narrow_step<plain, Float32, Narrow>...},
            {narrow_step<plain, Alike, Narrow>...},
            {narrow_update<Narrow, others>()...}};
}

// One row per dtype that is worked in, and one per way to store what is worked on in float32.
constexpr Kernels table = {
    FAST_MOMENTUM_FLAGS,
    {dtype<float>(Dtype::float32, "float32", 11, 1, all_plain, all_others, all),
     dtype<double>(Dtype::float64, "float64", 12, 1, all_plain, all_others, all),
     dtype<float>(Dtype::complex64, "complex64", 14, 2, all_plain, all_others, all),
     dtype<double>(Dtype::complex128, "complex128", 15, 2, all_plain, all_others, all)},
    {storage<Float16, Float16>(Stored::float16, "float16", false, all_plain, all_others),
     storage<Bfloat16, Bfloat16>(Stored::bfloat16, "bfloat16", false, all_plain, all_others),
     // No gradients are stored with scales.
     storage<Int8, Float32>(Stored::int8, "int8", true, all_plain, all_others)}};

template <class Row, unsigned n>
constexpr bool in_order(const Row (&rows)[n]) {
    for (unsigned i = 0; i < n; ++i)
        if (unsigned(rows[i].place) != i) return false;
    return true;
}
static_assert(in_order(table.dtypes) && in_order(table.storages), "a row for each name, in their order");

extern const Kernels kernels;
const Kernels kernels = table;

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
