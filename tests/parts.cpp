// Does every part of a call, for any number of parts, step each element exactly once? Includes run.cpp
// itself, to call its parts one after the other in one thread.
#include <array>
#include <cstdio>
#include <deque>
#include <vector>

#include "../src/plain/gather.cpp"
#include "../src/plain/pass.cpp"
#include "../src/plain/row_steps.cpp"
#include "../src/plain/rows.cpp"
#include "../src/plain/run.cpp"
#include "../src/plain/strided.cpp"
#include "../src/plain/threads.cpp"
#include "../src/plain/work.cpp"

namespace {

using namespace fast_momentum;

// Counts its visits in the first operand.
void count(char* first, const char*, char*, std::size_t n, const Coefficients&) noexcept {
    for (std::size_t i = 0; i < n; ++i) reinterpret_cast<float*>(first)[i] += 1;
}

// The same for whole updates, whose parts begin at other seams; some lie in another order than the state's.
bool updates_are_whole(std::size_t parts) {
    const Coefficients coefficients{};
    DtypeKernels dtype{};
    dtype.itemsize = sizeof(float);
    dtype.step[0] = count;
    std::vector<std::vector<float>> params, others;
    std::deque<std::array<Operand, Slot::n>> operands;
    Work work;
    for (const std::ptrdiff_t n : {1, 511, 512, 4095, 4096, 4097, 20000})
        for (const std::ptrdiff_t step : {1, 2}) {
            params.emplace_back(static_cast<std::size_t>(n * step));
            others.emplace_back(static_cast<std::size_t>(n));
            Update update{};
            update.dtype = &dtype;
            update.coefficients = &coefficients;
            update.n = static_cast<std::size_t>(n);
            update.param.data = reinterpret_cast<char*>(params.back().data());
            auto& slots = operands.emplace_back();
            update.partner.data = slots[Slot::velocity].data = reinterpret_cast<char*>(others.back().data());
            update.slots = slots.data();
            constexpr std::ptrdiff_t item = sizeof(float);
            const std::ptrdiff_t strides[] = {step * item}, order[] = {item}, shape[] = {n};
            work.add_update(update, {step == 1 ? nullptr : strides, order}, order, shape, 1);
        }
    std::size_t total = 0;
    for (const Update& update : work.updates) total += update.n;
    for (std::size_t part = 0; part < parts; ++part) run_part(work, total, part, parts);
    for (std::size_t k = 0; k < params.size(); ++k)
        for (std::size_t i = 0; i < params[k].size(); ++i)
            if (params[k][i] != float(i % (k % 2 + 1) == 0)) {
                std::printf("%zu parts: element %zu of update %zu: %g visits\n", parts, i, k,
                            double(params[k][i]));
                return false;
            }
    return true;
}

}  // namespace

int main() {
    constexpr std::size_t sizes[] = {1, 0, 15, 16, 17, 5000, 31, 32, 1, 1, 1, 777, 64};
    constexpr std::ptrdiff_t item = sizeof(float);
    for (std::size_t parts = 1; parts < 40; ++parts) {
        if (!updates_are_whole(parts)) return 1;
        const Coefficients coefficients{};
        std::vector<std::vector<float>> arrays;
        Work work;
        work.access = {{true, false, false}, {true, false, false}};
        for (const std::size_t n : sizes) {
            arrays.emplace_back(2 * n + 1);
            char* data = reinterpret_cast<char*>(arrays.back().data());
            work.add_dense({{data, data, data}, n, count, &coefficients, sizeof(float)});
            arrays.emplace_back(2 * n + 1);
            data = reinterpret_cast<char*>(arrays.back().data());
            const auto length = static_cast<std::ptrdiff_t>(n);
            const std::ptrdiff_t strides[] = {2 * item}, shape[] = {length};
            work.add_strided({{data, data, data}, n, count, &coefficients, sizeof(float)},
                             {strides, strides, strides}, shape, 1);
            // The second operand has the other order; few and many columns, and a third dimension.
            const std::ptrdiff_t shapes[][3] = {{1, length, 40}, {1, 40, length}, {length, 3, 2}};
            for (const auto& box : shapes) {
                const std::ptrdiff_t c[] = {box[1] * box[2] * item, box[2] * item, item};
                const std::ptrdiff_t f[] = {item, box[0] * item, box[0] * box[1] * item};
                arrays.emplace_back(static_cast<std::size_t>(box[0] * box[1] * box[2]));
                data = reinterpret_cast<char*>(arrays.back().data());
                work.add_strided({{data, data, data}, 0, count, &coefficients, sizeof(float)}, {c, f, c}, box,
                                 3);
            }
        }
        std::size_t total = 0;
        for (const Slice& slice : work.slices) total += slice.n;
        for (std::size_t part = 0; part < parts; ++part) run_part(work, total, part, parts);
        for (std::size_t k = 0; k < arrays.size(); ++k) {
            const std::size_t n = k % 5 > 1 ? arrays[k].size() : sizes[k / 5], step = k % 5 == 1 ? 2 : 1;
            for (std::size_t i = 0; i < arrays[k].size(); ++i) {
                const float expected = i % step == 0 && i / step < n ? 1 : 0;
                if (arrays[k][i] == expected) continue;
                std::printf("%zu parts: element %zu of array %zu: %g visits\n", parts, i, k,
                            double(arrays[k][i]));
                return 1;
            }
        }
    }
    return 0;
}
