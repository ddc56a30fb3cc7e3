// The loops over elements and the table of kernels; compiled once per instruction set, into the namespace of
// that name. Includes no standard template and has no object that is built at run time: the linker would
// keep one copy of such code for all CPUs.
#include "kernels/compilers.hpp"
#include "kernels/formulas/linear.hpp"
#include "kernels/kernels.hpp"
#include "kernels/stages.hpp"
#include "kernels/storage.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

// Both lines of the rule run over a block while it is in L1. In training loops that is up to 2 times as
// fast as one fused loop, elsewhere it differs little (docs/decisions.md).
constexpr std::size_t block_bytes = 2048;

template <class T, unsigned terms>
inline void velocity_line(const LinearRule<T, terms>& rule, const T* RESTRICT param, const T* RESTRICT grad,
                          T* RESTRICT velocity, std::size_t n) noexcept {
    UNROLLED for (std::size_t i = 0; i < n; ++i) velocity[i] =
        rule.new_velocity(param[i], grad[i], velocity[i]);
}

template <class T, unsigned terms>
inline void param_line(const LinearRule<T, terms>& rule, T* RESTRICT param, const T* RESTRICT grad,
                       const T* RESTRICT velocity, std::size_t n) noexcept {
    UNROLLED for (std::size_t i = 0; i < n; ++i) param[i] = rule.new_param(param[i], grad[i], velocity[i]);
}

template <class T, unsigned terms>
void step(char* first, const char* second, char* third, std::size_t n, const Coefficients& c) noexcept {
    constexpr std::size_t block = block_bytes / sizeof(T);
    const LinearRule<T, terms> rule(c);
    T* param = reinterpret_cast<T*>(first);
    const T* grad = reinterpret_cast<const T*>(second);
    T* velocity = reinterpret_cast<T*>(third);
    for (std::size_t begin = 0; begin < n; begin += block) {
        const std::size_t length = n - begin < block ? n - begin : block;
        velocity_line(rule, param + begin, grad + begin, velocity + begin, length);
        param_line(rule, param + begin, grad + begin, velocity + begin, length);
    }
}

// The line that makes the velocities reads them as they are stored: a loop that only converts them would wait
// for memory, and the others would not.
template <unsigned terms, class Grad, class Velocity>
void narrow_step(char* param_, const char* grad_, char* velocity_, float* scales, std::size_t n,
                 const Coefficients& c) noexcept {
    constexpr std::size_t block = block_bytes / sizeof(float);
    static_assert(block % scale_block == 0, "scales must not be shared by two blocks");
    const LinearRule<float, terms> rule(c);
    alignas(64) float new_velocity[block];
    float* RESTRICT made = new_velocity;
    for (std::size_t first = 0; first < n; first += block) {
        const std::size_t length = n - first < block ? n - first : block;
        float* RESTRICT param = reinterpret_cast<float*>(param_) + first;
        const auto* RESTRICT grad = reinterpret_cast<const typename Grad::Item*>(grad_) + first;
        auto* RESTRICT velocity = reinterpret_cast<typename Velocity::Item*>(velocity_) + first;
        float* scale_of_block = scales ? scales + first / scale_block : nullptr;
        by_scale(scale_of_block, length, [&](std::size_t begin, std::size_t end, float scale) {
            UNROLLED for (std::size_t i = begin; i < end; ++i) made[i] =
                rule.new_velocity(param[i], Grad::value(grad[i], 0), Velocity::value(velocity[i], scale));
        });
        UNROLLED for (std::size_t i = 0; i < length; ++i) param[i] =
            rule.new_param(param[i], Grad::value(grad[i], 0), made[i]);
        Velocity::store(velocity, scale_of_block, made, length);
    }
}

template <class T, unsigned terms>
void displace(const char* param_, const char* grad_, char* velocity_, char* displacement_, std::size_t n,
              const Coefficients& c) noexcept {
    const LinearRule<T, terms> rule(c);
    const T* RESTRICT param = reinterpret_cast<const T*>(param_);
    const T* RESTRICT grad = reinterpret_cast<const T*>(grad_);
    T* RESTRICT velocity = reinterpret_cast<T*>(velocity_);
    T* RESTRICT displacement = reinterpret_cast<T*>(displacement_);
    velocity_line(rule, param, grad, velocity, n);
    for (std::size_t i = 0; i < n; ++i) displacement[i] = rule.displacement(param[i], grad[i], velocity[i]);
}

template <class T>
void lookahead(char* first, const char* second, char* third, std::size_t n, const Coefficients& c) noexcept {
    const T ahead = T(c.ahead);
    T* RESTRICT out = reinterpret_cast<T*>(first);
    const T* RESTRICT param = reinterpret_cast<const T*>(second);
    const T* RESTRICT velocity = reinterpret_cast<const T*>(third);
    for (std::size_t i = 0; i < n; ++i) out[i] = lookahead_point(param[i], velocity[i], ahead);
}

template <class T>
double rounded(double value) {
    return double(T(value));
}

template <class T>
constexpr DtypeKernels dtype(const char* name, int number) {
    return {name,
            number,
            sizeof(T),
            rounded<T>,
            {step<T, 0>, step<T, 1>, step<T, 2>, step<T, 3>, step<T, 4>, step<T, 5>, step<T, 6>, step<T, 7>},
            lookahead<T>,
            {prepare<T>,
             {displace<T, 0>, displace<T, 1>, displace<T, 2>, displace<T, 3>, displace<T, 4>, displace<T, 5>,
              displace<T, 6>, displace<T, 7>},
             subtract<T>,
             compensate<T>,
             average<T>,
             finite<T>,
             squares<T>}};
}

template <class Stored, class Alike>
constexpr Storage storage(const char* name, bool has_scales) {
    return {
        name,
        sizeof(typename Stored::Item),
        has_scales,
        load<Stored>,
        store<Stored>,
        {narrow_step<0, Float32, Stored>, narrow_step<1, Float32, Stored>, narrow_step<2, Float32, Stored>,
         narrow_step<3, Float32, Stored>, narrow_step<4, Float32, Stored>, narrow_step<5, Float32, Stored>,
         narrow_step<6, Float32, Stored>, narrow_step<7, Float32, Stored>},
        {narrow_step<0, Alike, Stored>, narrow_step<1, Alike, Stored>, narrow_step<2, Alike, Stored>,
         narrow_step<3, Alike, Stored>, narrow_step<4, Alike, Stored>, narrow_step<5, Alike, Stored>,
         narrow_step<6, Alike, Stored>, narrow_step<7, Alike, Stored>}};
}

// One row per dtype that is worked in, and one per way to store what is worked on in float32.
extern const Kernels kernels;
const Kernels kernels = {
    FAST_MOMENTUM_FLAGS,
    {dtype<float>("float32", 11), dtype<double>("float64", 12)},
    {storage<Float16, Float16>("float16", false), storage<Bfloat16, Bfloat16>("bfloat16", false),
     // No gradients are stored with scales.
     storage<Int8, Float32>("int8", true)}};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
