// Does this build give the bits that tests/record.py has written down, where the format is described too?
//
//     recorded FILE [INSTRUCTION SET]
//
// Every instruction set that the CPU can run, with one thread and with two. If one is named, it must be the
// one that is in use from the start.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "plain/isa.hpp"
#include "plain/rules.hpp"
#include "plain/run.hpp"
#include "plain/work.hpp"

namespace {

using namespace fast_momentum;

constexpr char magic[] = {'m', 'o', 'm', 'e', 'n', 't', 'u', 'm'};
constexpr int max_dimensions = 3;

struct Operand {
    std::int64_t bytes, offset, strides[max_dimensions];
};

struct Header {
    Values values;
    std::int64_t rule, first, lookahead, dtype, ndim, shape[max_dimensions];
    Operand operands[n_operands];
};

constexpr Access step_access = {{true, true, true}, {true, false, true}};
constexpr Access lookahead_access = {{false, true, true}, {true, false, false}};

using Bytes = std::vector<char>;

struct Case {
    Header header;
    Access access;
    Bytes before[n_operands], wanted[n_operands];
};

[[noreturn]] void fail(const std::string& message) {
    std::printf("%s\n", message.c_str());
    std::exit(1);
}

// Nothing of it may change.
constexpr std::size_t guard = 64;

class File {
  public:
    explicit File(const char* name) : stream_(name, std::ios::binary) {}

    void read(void* to, std::size_t n) {
        if (!stream_.read(static_cast<char*>(to), static_cast<std::streamsize>(n)))
            fail("the file is truncated, or is none");
    }

    template <class T>
    T read() {
        T value;
        read(&value, sizeof value);
        return value;
    }

    Bytes read_between_guards(std::int64_t bytes) {
        const auto n = static_cast<std::size_t>(bytes);
        Bytes memory(n + 2 * guard, 77);
        read(memory.data() + guard, n);
        return memory;
    }

    bool at_end() { return stream_.peek() == std::ifstream::traits_type::eof(); }

  private:
    std::ifstream stream_;
};

Case read_case(File& file) {
    Case c;
    c.header = file.read<Header>();
    c.access = c.header.lookahead ? lookahead_access : step_access;
    for (unsigned i = 0; i < n_operands; ++i)
        c.before[i] = file.read_between_guards(c.header.operands[i].bytes);
    for (unsigned i = 0; i < n_operands; ++i)
        c.wanted[i] =
            c.access.written[i] ? file.read_between_guards(c.header.operands[i].bytes) : c.before[i];
    return c;
}

std::vector<Case> read_cases(const char* name) {
    File file(name);
    char found[sizeof magic];
    file.read(found, sizeof found);
    if (std::memcmp(found, magic, sizeof magic) != 0) fail("the file is not one of record.py");
    const auto n = file.read<std::int64_t>();
    if (n < 1) fail("the file has no cases");
    std::vector<Case> cases;
    for (std::int64_t i = 0; i < n; ++i) cases.push_back(read_case(file));
    if (!file.at_end()) fail("the file has more than its cases");
    return cases;
}

const DtypeKernels& kernels_for(std::int64_t dtype) {
    for (const DtypeKernels& row : isa_in_use().kernels->dtypes)
        if (row.number == dtype) return row;
    fail("no kernels for dtype " + std::to_string(dtype));
}

// The operands after the call.
std::vector<Bytes> computed(const Case& c, int threads) {
    const Header& h = c.header;
    const DtypeKernels& kernels = kernels_for(h.dtype);
    const Coefficients constants = coefficients(all_rules()[h.rule], h.values, h.first ? 0 : 1);
    std::vector<Bytes> memory(c.before, c.before + n_operands);
    const auto first = [&](unsigned i) { return memory[i].data() + guard + h.operands[i].offset; };
    const std::vector<std::ptrdiff_t> shape(h.shape, h.shape + h.ndim);
    std::vector<std::ptrdiff_t> strides[n_operands];
    for (unsigned i = 0; i < n_operands; ++i)
        strides[i].assign(h.operands[i].strides, h.operands[i].strides + h.ndim);
    Work work;
    work.access = c.access;
    const Kernel kernel = h.lookahead ? kernels.lookahead : kernels.step[constants.variant];
    work.add_strided(
        {{first(0), first(1), first(2)}, 0, kernel, &constants, static_cast<unsigned>(kernels.itemsize)},
        {strides[0].data(), strides[1].data(), strides[2].data()}, shape.data(), static_cast<int>(h.ndim));
    run(work, threads);
    return memory;
}

std::string described(const Case& c) {
    const Header& h = c.header;
    std::string text = std::string(h.lookahead ? "look-ahead"
                                   : h.first   ? "first step"
                                               : "later step") +
                       ", " + all_rules()[h.rule].title() + ", " + kernels_for(h.dtype).name + ", shape (";
    for (int d = 0; d < h.ndim; ++d) text += (d ? ", " : "") + std::to_string(h.shape[d]);
    text += ")";
    for (const Setting& setting : all_settings)
        if (h.values[setting.place] != 0)
            text += std::string(", ") + setting.name + "=" + std::to_string(h.values[setting.place]);
    return text;
}

constexpr int shown = 10;

// Compares the bits of all memory, those of any NaN alike, and returns how many elements differ.
template <class T, class Bits>
int differences(const Case& c, const std::vector<Bytes>& found, const std::string& how) {
    int count = 0;
    for (unsigned operand = 0; operand < n_operands; ++operand) {
        for (std::size_t at = 0; at < found[operand].size(); at += sizeof(T)) {
            T numbers[2];
            Bits bits[2];
            std::memcpy(&numbers[0], &c.wanted[operand][at], sizeof(T));
            std::memcpy(&numbers[1], &found[operand][at], sizeof(T));
            std::memcpy(bits, numbers, sizeof bits);
            if (bits[0] == bits[1] || (std::isnan(numbers[0]) && std::isnan(numbers[1]))) continue;
            if (++count > shown) continue;
            const auto element = (static_cast<std::ptrdiff_t>(at) - static_cast<std::ptrdiff_t>(guard)) /
                                 static_cast<std::ptrdiff_t>(sizeof(T));
            std::printf("%s; %s: operand %u, element %td of its memory: %a (%llx) wanted, %a (%llx) found\n",
                        described(c).c_str(), how.c_str(), operand, element, double(numbers[0]),
                        static_cast<unsigned long long>(bits[0]), double(numbers[1]),
                        static_cast<unsigned long long>(bits[1]));
        }
    }
    return count;
}

int differences(const Case& c, const std::vector<Bytes>& found, const std::string& how) {
    return kernels_for(c.header.dtype).itemsize == sizeof(float)
               ? differences<float, std::uint32_t>(c, found, how)
               : differences<double, std::uint64_t>(c, found, how);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) fail("usage: recorded FILE [INSTRUCTION SET]");
    const std::string in_use = isa_in_use().name;
    if (argc > 2 && in_use != argv[2]) fail("in use is " + in_use + ", not " + argv[2]);
    const std::vector<Case> cases = read_cases(argv[1]);
    std::string names;
    int different = 0;
    for (const Isa& isa : isas()) {
        if (!use_isa(isa.name)) continue;
        names += std::string(" ") + isa.name;
        for (const Case& c : cases)
            for (const int threads : {1, 2}) {
                const std::string how = std::string(isa.name) + ", threads: " + std::to_string(threads);
                if (different < shown) different += differences(c, computed(c, threads), how);
            }
    }
    std::printf("%zu cases, instruction sets:%s: %s\n", cases.size(), names.c_str(),
                different ? "NOT all bits equal" : "all bits equal");
    return different ? 1 : 0;
}
