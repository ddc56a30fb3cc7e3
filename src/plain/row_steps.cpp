#include "plain/row_steps.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/compilers.hpp"
#include "plain/gather.hpp"
#include "plain/pass.hpp"

namespace fast_momentum {

namespace {

// What is worked on at a time: enough rows to wait for many of them at once, and all operands in L1.
constexpr std::size_t batch = 1024;

// Rows as long as this stay where they are, if they are dense.
constexpr std::size_t long_enough = 256;

// Padded, as pass.cpp says.
struct RowBuffer {
    alignas(64) char bytes[batch * sizeof(double) + 320];
};

// Whose strides an operand has, those of slots in elements, as not all are stored alike.
enum Layout : unsigned { own, of_partner, of_state };

// Copies as much as one row often has in a few instructions.
void copy(char* to, const char* from, std::size_t bytes) {
    switch (bytes) {
        case 4:
            return void(std::memcpy(to, from, 4));
        case 8:
            return void(std::memcpy(to, from, 8));
        case 64:
            return void(std::memcpy(to, from, 64));
        default:
            std::memcpy(to, from, bytes);
    }
}

// An operand of an update with rows.
class Lines {
  public:
    Lines() = default;
    Lines(const Work& work, const Update& update, const Operand& operand, Layout layout)
        : data_(operand.data), itemsize_(operand.itemsize(*update.dtype)) {
        const Dimension* rows = work.dimensions.data() + update.first_dimension;
        order_ = {rows + 1, update.n_dimensions - 1, layout,
                  layout == of_state ? static_cast<std::ptrdiff_t>(itemsize_) : 1};
        stride_ = rows->strides[layout] * order_.unit;
        auto dense = static_cast<std::ptrdiff_t>(itemsize_);
        for (unsigned d = order_.n_dimensions; d-- > 0;) {
            const Dimension& dim = order_.dimensions[d];
            is_dense_ = is_dense_ && dim.strides[layout] * order_.unit == dense;
            dense *= static_cast<std::ptrdiff_t>(dim.size);
        }
    }

    bool is_dense() const { return is_dense_; }
    std::size_t itemsize() const { return itemsize_; }
    char* row(std::uint64_t i) const { return data_ + static_cast<std::ptrdiff_t>(i) * stride_; }
    // Element `at` of a row that is dense.
    char* element(std::uint64_t i, std::size_t at) const { return row(i) + at * itemsize_; }

    // Elements [at, at + n) of a row.
    void read(char* to, std::uint64_t i, std::size_t at, std::size_t n) const {
        if (is_dense_)
            copy(to, element(i, at), n * itemsize_);
        else
            gather(to, row(i), order_, itemsize_, at, n);
    }
    void write(const char* from, std::uint64_t i, std::size_t at, std::size_t n) const {
        if (is_dense_)
            copy(element(i, at), from, n * itemsize_);
        else
            scatter(from, row(i), order_, itemsize_, at, n);
    }
    void set_zero(std::uint64_t i, std::size_t n) const {
        if (is_dense_)
            std::memset(row(i), 0, n * itemsize_);
        else
            clear(row(i), order_, itemsize_, 0, n);
    }

  private:
    char* data_ = nullptr;
    std::size_t itemsize_ = 0;
    Order order_ = {};
    std::ptrdiff_t stride_ = 0;  // from row to row
    bool is_dense_ = true;
};

template <class T>
void add(char* RESTRICT sum_, const char* RESTRICT more_, std::size_t n) {
    T* RESTRICT sum = reinterpret_cast<T*>(sum_);
    const T* RESTRICT more = reinterpret_cast<const T*>(more_);
    for (std::size_t i = 0; i < n; ++i) sum[i] = sum[i] + more[i];
}

// The gradient of each distinct row, in the dtype that is worked in.
class Gradient {
  public:
    Gradient(const Work& work, const Update& update)
        : update_(update), rows_(*update.rows), lines_(work, update, update.partner, of_partner) {}

    // Elements [at, at + n) of a row, n <= batch.
    void read(char* to, std::size_t distinct, std::size_t at, std::size_t n) {
        const std::size_t itemsize = update_.dtype->itemsize;
        if (!rows_.sums.empty()) {
            const char* sums = reinterpret_cast<const char*>(rows_.sums.data());
            return copy(to, sums + (distinct * rows_.row_elements() + at) * itemsize, n * itemsize);
        }
        const Rows::Item *item = rows_.begin(distinct), *end = rows_.end(distinct);
        load(to, *item, at, n);
        while (++item != end) {
            load(more_.bytes, *item, at, n);
            (itemsize == sizeof(float) ? add<float> : add<double>)(to, more_.bytes, n);
        }
    }

  private:
    void load(char* to, const Rows::Item& item, std::size_t at, std::size_t n) {
        const Storage* storage = update_.partner.storage;
        if (!storage) return lines_.read(to, item.position, at, n);
        lines_.read(stored_.bytes, item.position, at, n);
        storage->load(reinterpret_cast<float*>(to), stored_.bytes, nullptr, n);
    }

    const Update& update_;
    const Rows& rows_;
    Lines lines_;
    RowBuffer more_, stored_;
};

// Takes some rows at a time out of their arrays, steps them as arrays of their own, and puts them back. A
// long one that is dense is used where it lies.
class Batches {
  public:
    Batches(const Work& work, const Update& update)
        : rows_(*update.rows), gradient_(work, update), itemsize_(update.dtype->itemsize), step_(update) {
        alone_.pass = work.pass;
        alone_.pass.zeroes_grads = false;
        step_.rows = nullptr;
        step_.n_dimensions = 0;
        step_.partner = {};
        step_.slots = slots_;
        add(Lines(work, update, update.param, own), step_.param);
        for (const Slot& slot : all_slots) {
            const Operand& kept = slots_[slot.place] = update.slots[slot.place];
            if (kept.data) add(Lines(work, update, kept, of_state), slots_[slot.place]);
        }
    }

    void step(std::size_t begin, std::size_t n) {
        const std::size_t row = rows_.row_elements();
        const std::size_t at_once = row < long_enough ? batch / row : 1;
        for (const std::size_t end = begin + n; begin < end; begin += at_once)
            for (std::size_t at = 0; at < row; at += batch)
                step(begin, std::min(at_once, end - begin), at, std::min(batch, row - at));
    }

  private:
    struct Array {
        Lines lines;
        Operand* operand;  // of step_, which is given the place of the rows
        RowBuffer copies;
    };

    void add(const Lines& lines, Operand& operand) {
        arrays_[n_arrays_].lines = lines;
        arrays_[n_arrays_++].operand = &operand;
    }

    std::uint64_t row(std::size_t distinct) const { return rows_.begin(distinct)->row; }

    // Elements [at, at + n) of each of these rows.
    void step(std::size_t first, std::size_t n_rows, std::size_t at, std::size_t n) {
        for (unsigned k = 0; k < n_arrays_; ++k) {
            Array& array = arrays_[k];
            const bool stays = n_rows == 1 && array.lines.is_dense();
            array.operand->data = stays ? array.lines.element(row(first), at) : array.copies.bytes;
            for (std::size_t i = 0; i < (stays ? 0 : n_rows); ++i)
                array.lines.read(array.copies.bytes + i * n * array.lines.itemsize(), row(first + i), at, n);
        }
        for (std::size_t i = 0; i < n_rows; ++i)
            gradient_.read(grads_.bytes + i * n * itemsize_, first + i, at, n);
        step_.partner.data = grads_.bytes;
        step_.n = n_rows * n;
        run_update(alone_, step_, 0, step_.n);
        for (unsigned k = 0; k < n_arrays_; ++k) {
            const Array& array = arrays_[k];
            for (std::size_t i = 0; i < (array.operand->data == array.copies.bytes ? n_rows : 0); ++i)
                array.lines.write(array.copies.bytes + i * n * array.lines.itemsize(), row(first + i), at, n);
        }
    }

    const Rows& rows_;
    Gradient gradient_;
    const std::size_t itemsize_;
    Work alone_;
    Update step_;
    Operand slots_[Slot::n];
    Array arrays_[1 + Slot::n];
    unsigned n_arrays_ = 0;
    RowBuffer grads_;
};

void zero_values(const Work& work, const Update& update, std::size_t begin, std::size_t n) {
    const Lines values(work, update, update.partner, of_partner);
    const Rows& rows = *update.rows;
    for (auto item = rows.begin(begin), end = rows.begin(begin + n); item != end; ++item)
        values.set_zero(item->position, rows.row_elements());
}

}  // namespace

void add_up(const Work& work, const Update& update, Rows& rows) {
    const std::size_t itemsize = update.dtype->itemsize, row_bytes = rows.row_elements() * itemsize;
    std::vector<double> sums((rows.n_distinct() * row_bytes + sizeof(double) - 1) / sizeof(double));
    char* to = reinterpret_cast<char*>(sums.data());
    Gradient gradient(work, update);
    for (std::size_t i = 0; i < rows.n_distinct(); ++i, to += row_bytes)
        for (std::size_t at = 0; at < rows.row_elements(); at += batch)
            gradient.read(to + at * itemsize, i, at, std::min(batch, rows.row_elements() - at));
    rows.sums = std::move(sums);
}

void run_rows(const Work& work, const Update& update, std::size_t begin, std::size_t n) {
    if (work.pass.task == Task::step) Batches(work, update).step(begin, n);
    if (work.pass.zeroes_grads) zero_values(work, update, begin, n);
}

}  // namespace fast_momentum
