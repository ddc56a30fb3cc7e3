#include "plain/isa.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>

#ifdef _MSC_VER
#include <intrin.h>
#endif

namespace fast_momentum {

// One table and one row per instruction set; CMakeLists.txt has the flags.
namespace baseline {
extern const Kernels kernels;
}
#ifdef FAST_MOMENTUM_HAS_avx2
namespace avx2 {
extern const Kernels kernels;
}
#endif

namespace {

#ifdef FAST_MOMENTUM_HAS_avx2
#ifdef _MSC_VER  // also clang-cl, which links without the library of the builtins below
bool has_avx2() {
    constexpr int osxsave = 1 << 27, f16c = 1 << 29, avx2 = 1 << 5, both_halves = 6;
    int registers[4];  // eax, ebx, ecx, edx
    __cpuid(registers, 0);
    if (registers[0] < 7) return false;
    __cpuid(registers, 1);
    const int found = registers[2];
    // Does the system keep both halves of the registers when another thread has its turn?
    if (!(found & osxsave) || (_xgetbv(0) & both_halves) != both_halves) return false;
    __cpuidex(registers, 7, 0);
    return (found & f16c) && (registers[1] & avx2);
}
#else
bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
}
#endif
#endif

std::vector<Isa> built() {
    std::vector<Isa> found = {{"baseline", &baseline::kernels, true, false}};
#ifdef FAST_MOMENTUM_HAS_avx2
    found.push_back({"avx2", &avx2::kernels, has_avx2(), false});
#endif
    return found;
}

std::vector<Isa> rows = built();

const Isa* fastest() {
    const Isa* best = rows.data();
    for (const Isa& isa : rows)
        if (isa.found && !isa.disabled) best = &isa;
    return best;
}

std::atomic<const Isa*> in_use{fastest()};

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

}  // namespace

const std::vector<Isa>& isas() {
    return rows;
}

std::vector<std::string> disable_isas(const std::string& names) {
    std::vector<std::string> unknown;
    const char* separators = ", \t\n\r\f\v";
    for (std::size_t end = 0, begin = 0;
         (begin = names.find_first_not_of(separators, end)) != std::string::npos;) {
        end = std::min(names.find_first_of(separators, begin), names.size());
        const std::string name = names.substr(begin, end - begin);
        const auto row = std::find_if(rows.begin() + 1, rows.end(),
                                      [&](const Isa& isa) { return isa.name == lower(name); });
        if (row == rows.end())
            unknown.push_back(name);
        else
            row->disabled = true;
    }
    in_use = fastest();
    return unknown;
}

const Isa& isa_in_use() {
    return *in_use;
}

bool use_isa(const std::string& name) {
    for (const Isa& isa : rows) {
        if (name != isa.name || !isa.found) continue;
        in_use = &isa;
        return true;
    }
    return false;
}

}  // namespace fast_momentum
