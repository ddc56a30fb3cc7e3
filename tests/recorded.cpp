// Does this build give the bits that tests/record.py has written down, where the format is described too?
//
//     recorded FILE [INSTRUCTION SET]
//
// Every instruction set that the CPU can run, with one thread and with two. If one is named, it must be the
// one that is in use from the start.
#include <algorithm>
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

constexpr unsigned count_slots() {
    unsigned count = 0;
    for (const Slot& slot : all_slots) count += slot.when == Slot::kept_by_the_rule;
    return count;
}
constexpr unsigned first_slot = 2, n_pieces = first_slot + count_slots();

struct Piece {
    std::int64_t bytes, offset, strides[max_dimensions];
};

struct Header {
    Values values;
    std::int64_t rule, steps;
    double history;
    std::int64_t lookahead, dtype, ndim, shape[max_dimensions];
    Piece operands[n_pieces];
};

constexpr Access step_access = {{true, true, true}, {true, false, true}};
constexpr Access lookahead_access = {{false, true, true}, {true, false, false}};

using Bytes = std::vector<char>;

struct Case {
    Header header;
    Bytes before[n_pieces], wanted[n_pieces];
};

// Of a step, all but the gradient.
bool is_written(const Header& header, unsigned operand) {
    return header.lookahead ? operand == 0 : operand != 1;
}

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
    for (unsigned i = 0; i < n_pieces; ++i)
        c.before[i] = file.read_between_guards(c.header.operands[i].bytes);
    for (unsigned i = 0; i < n_pieces; ++i)
        c.wanted[i] =
            is_written(c.header, i) ? file.read_between_guards(c.header.operands[i].bytes) : c.before[i];
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

// Where the operands of a call lie.
struct Operands {
    char* first[n_pieces];
    std::vector<std::ptrdiff_t> shape, strides[n_operands];  // of param, of its partner, of all slots
    fast_momentum::Operand slots[Slot::n];

    Operands(const Header& h, std::vector<Bytes>& memory) : shape(h.shape, h.shape + h.ndim) {
        for (unsigned i = 0; i < n_pieces; ++i) first[i] = memory[i].data() + guard + h.operands[i].offset;
        for (unsigned i = first_slot; i < n_pieces; ++i)
            if (h.operands[i].bytes) slots[i - first_slot].data = first[i];
        unsigned any_slot = first_slot;
        while (any_slot + 1 < n_pieces && !h.operands[any_slot].bytes) ++any_slot;
        for (const unsigned i : {0u, 1u, any_slot})
            strides[std::min(i, first_slot)].assign(h.operands[i].strides, h.operands[i].strides + h.ndim);
    }
    int ndim() const { return static_cast<int>(shape.size()); }
};

void add_slice(Work& work, const Operands& of, const Kernel kernel, const DtypeKernels& kernels,
               const Coefficients& constants) {
    const Slice slice = {{of.first[0], of.first[1], of.first[2]},
                         0,
                         kernel,
                         &constants,
                         static_cast<unsigned>(kernels.itemsize)};
    work.add_strided(slice, {of.strides[0].data(), of.strides[1].data(), of.strides[2].data()},
                     of.shape.data(), of.ndim());
}

void add_update(Work& work, const Operands& of, const DtypeKernels& kernels, const Coefficients& constants) {
    Update update = {&kernels, &constants, 1, 0, 0, {of.first[0]}, {of.first[1]}, of.slots};
    for (const std::ptrdiff_t size : of.shape) update.n *= static_cast<std::size_t>(size);
    const auto& order = of.strides[2];
    const bool alike = of.strides[0] == order && of.strides[1] == order;
    work.add_update(update, {alike ? nullptr : of.strides[0].data(), alike ? nullptr : of.strides[1].data()},
                    order.data(), of.shape.data(), of.ndim());
}

// The operands after the call.
std::vector<Bytes> computed(const Case& c, int threads) {
    const Header& h = c.header;
    const DtypeKernels& kernels = kernels_for(h.dtype);
    const Coefficients constants = coefficients(all_rules()[h.rule], h.values, {h.steps, h.history});
    std::vector<Bytes> memory(c.before, c.before + n_pieces);
    const Operands operands(h, memory);
    Work work;
    work.access = h.lookahead ? lookahead_access : step_access;
    if (h.lookahead)
        add_slice(work, operands, kernels.lookahead, kernels, constants);
    else if (constants.variant < n_plain_variants)
        add_slice(work, operands, kernels.step[constants.variant], kernels, constants);
    else
        add_update(work, operands, kernels, constants);
    run(work, threads);
    return memory;
}

std::string described(const Case& c) {
    const Header& h = c.header;
    std::string text = std::string(h.lookahead ? "look-ahead" : "step") + " after " +
                       std::to_string(h.steps) + ", " + all_rules()[h.rule].title() + ", " +
                       kernels_for(h.dtype).name + ", shape (";
    for (int d = 0; d < h.ndim; ++d) text += (d ? ", " : "") + std::to_string(h.shape[d]);
    text += ")";
    for (const Setting& setting : all_settings)
        if (h.values.has(setting.place) && h.values[setting.place] != 0)
            text += std::string(", ") + setting.name + "=" + std::to_string(h.values[setting.place]);
    return text;
}

constexpr int shown = 10;

// Compares the bits of all memory, those of any NaN alike, and returns how many elements differ.
template <class T, class Bits>
int differences(const Case& c, const std::vector<Bytes>& found, const std::string& how) {
    int count = 0;
    for (unsigned operand = 0; operand < n_pieces; ++operand) {
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
