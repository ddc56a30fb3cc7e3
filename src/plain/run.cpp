#include "plain/run.hpp"

#include "plain/pass.hpp"
#include "plain/row_steps.hpp"
#include "plain/strided.hpp"
#include "plain/threads.hpp"

namespace fast_momentum {

namespace {

// Calls that move less than this run in one thread: starting the others would cost more than they save
// (docs/decisions.md).
constexpr std::size_t threads_bytes = std::size_t(1) << 20;

// A piece of an array begins at a multiple of this many elements: where the array begins a cache line, the
// piece does too, and no two threads write to one line.
constexpr std::size_t piece_elements = 16;

// Elements [begin, begin + n) of one slice.
void run_piece(const Work& work, const Slice& slice, std::size_t begin, std::size_t n) {
    if (slice.n_dimensions == 0) {
        const std::size_t offset = begin * slice.itemsize;
        slice.kernel(slice.operands[0] + offset, slice.operands[1] + offset, slice.operands[2] + offset, n,
                     *slice.coefficients);
        return;
    }
    run_strided(work, slice, begin, n);
}

// A piece of an update holds whole rows, where it is one of rows.
std::size_t piece_of(const Update& update) {
    if (!update.rows) return update_piece;
    const std::size_t row = update.rows->row_elements();
    return (update_piece + row - 1) / row * row;
}

void run_piece(const Work& work, const Update& update, std::size_t begin, std::size_t n) {
    if (!update.rows) return run_update(work, update, begin, n);
    const std::size_t row = update.rows->row_elements();
    run_rows(work, update, begin / row, n / row);
}

// The part [begin, end) of all elements, of which those of `item` begin at `first`, moved to seams that
// neighbours agree on: run(begin, n) for the elements of the item.
template <class Run>
void run_share(std::size_t begin, std::size_t end, std::size_t first, std::size_t n, std::size_t piece,
               const Run& run) {
    const auto seam = [&](std::size_t at) {
        if (at <= first) return std::size_t(0);
        return at >= first + n ? n : (at - first) / piece * piece;
    };
    if (seam(begin) < seam(end)) run(seam(begin), seam(end) - seam(begin));
}

// The share of thread `part` of `parts`: an equal part of the elements, whatever arrays they belong to.
void run_part(const Work& work, std::size_t total, std::size_t part, std::size_t parts) {
    const std::size_t begin = total / parts * part;
    const std::size_t end = part + 1 == parts ? total : total / parts * (part + 1);
    std::size_t first = 0;  // of the array, among all elements
    for (const Slice& slice : work.slices) {
        run_share(begin, end, first, slice.n, piece_elements,
                  [&](std::size_t at, std::size_t n) { run_piece(work, slice, at, n); });
        first += slice.n;
    }
    for (const Update& update : work.updates) {
        run_share(begin, end, first, update.n, piece_of(update),
                  [&](std::size_t at, std::size_t n) { run_piece(work, update, at, n); });
        first += update.n;
    }
}

}  // namespace

int threads_for(std::size_t bytes) {
    return bytes < threads_bytes ? 1 : usable_threads();
}

void run(const Work& work, int threads) noexcept {
    if (threads == 1 && work.updates.empty()) {
        for (const Slice& slice : work.slices) run_piece(work, slice, 0, slice.n);
        return;
    }
    std::size_t total = 0;
    for (const Slice& slice : work.slices) total += slice.n;
    for (const Update& update : work.updates) total += update.n;
    in_parallel(threads, [&](std::size_t part, std::size_t parts) { run_part(work, total, part, parts); });
}

}  // namespace fast_momentum
