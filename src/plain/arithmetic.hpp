// The arithmetic that bits are promised in, whatever another library has set for the thread.
#pragma once

#include <cfenv>
#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#elif defined(_M_ARM64)
#include <intrin.h>
#endif

namespace fast_momentum {

// For its lifetime, in the thread that made it: to nearest, half to even; with subnormal numbers; and without
// traps. Programs set other ways for their own use (torch.set_flush_denormal, -ffast-math), for one thread
// and not for those of OpenMP.
class StandardArithmetic {
  public:
    StandardArithmetic() : found_(control()), differs_((found_ & settings) != standard) {
        if (differs_) set((found_ & ~settings) | standard);
    }
    StandardArithmetic(const StandardArithmetic&) = delete;
    StandardArithmetic& operator=(const StandardArithmetic&) = delete;
    ~StandardArithmetic() {
        if (differs_) set(found_);
    }

  private:
#if defined(__SSE2__) || defined(_M_X64)
    using Control = unsigned;
    // All but the flags of what has happened; traps are masked by ones.
    static constexpr Control settings = 0xffc0, standard = 0x1f80;
    static Control control() { return _mm_getcsr(); }
    static void set(Control value) { _mm_setcsr(value); }
#elif defined(__aarch64__) || defined(_M_ARM64)
    using Control = std::uint64_t;
    // FZ16, rounding, FZ, and DN, which makes all NaN alike; the alternative ways with numbers; the traps.
    static constexpr Control settings = 0x7c89f07, standard = 0;
#ifdef _MSC_VER
    static constexpr int fpcr = 0x5a20;  // its number, ARM64_FPCR of the header of Windows
    static Control control() { return _ReadStatusReg(fpcr); }
    static void set(Control value) { _WriteStatusReg(fpcr, value); }
#else
    static Control control() {
        Control value;
        __asm__ volatile("mrs %0, fpcr" : "=r"(value));
        return value;
    }
    static void set(Control value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }
#endif
#else
    using Control = int;
    static constexpr Control settings = ~0, standard = FE_TONEAREST;
    static Control control() { return std::fegetround(); }
    static void set(Control value) { std::fesetround(value); }
#endif
    const Control found_;
    const bool differs_;
};

}  // namespace fast_momentum
