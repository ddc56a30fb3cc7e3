#include "plain/pass.hpp"

#include <algorithm>
#include <cstring>

#include "plain/copy.hpp"
#include "plain/gather.hpp"

namespace fast_momentum {

namespace {

constexpr std::size_t block = sum_block;
static_assert(block % scale_block == 0 && update_piece % block == 0,
              "scales must not be shared by two blocks");

// Not a page long: a load waits for an earlier store whose address agrees with its own in the last twelve
// bits.
template <class T>
struct Buffer {
    alignas(64) char bytes[block * sizeof(T) + 320];
};

// run(k, name) for each slot that the rule keeps, in their order.
template <class Run>
void each_slot_of_the_rule(const Update& update, const Run& run) {
    unsigned k = 0;
    for (const Slot& row : all_slots)
        if (row.is_of_the_rule() && update.slots[row.place].data) run(k++, row.place);
}

// One block of an update: what its operands are in the dtype that is worked in, and back. An operand that is
// dense and of that dtype is used where it lies.
class Block {
  public:
    // `taken_out`: the gradients of the block, where they have been copied from their array before.
    Block(const Work& work, const Update& update, std::size_t begin, std::size_t n, char* taken_out)
        : work_(work),
          update_(update),
          begin_(begin),
          n_(n),
          lies_{place_of(update.param, own), taken_out ? taken_out : place_of(update.partner, partner)} {}

    void step() {
        char* param = params();
        if (update_.coefficients) {
            const Coefficients& c = *update_.coefficients;
            if (slot(Slot::compensation).data)
                compensated_step(param);
            else if (c.variant >= n_whole_variants)
                accelerated_step(param);
            else if (c.variant >= n_plain_variants)
                update(param);
            else if (slot(Slot::velocity).storage)
                narrow_step(param);
            else
                update_.dtype->step[c.variant](param, gradients(), at(slot(Slot::velocity).data), n_, c);
            if (work_.pass.has_bounds && c.variant < n_whole_variants) hold_in_box(param);
            if (!slot(Slot::compensation).data || work_.pass.has_bounds)
                write(update_.param, own, param, param_);
            if (work_.pass.zeroes_grads) zero_grads();
        }
        if (work_.pass.averages())
            update_.dtype->stages.average(at(slot(Slot::average).data), param, n_,
                                          (*work_.pass.settings)[Setting::average_decay]);
    }

    void lookahead() {
        const char* param = read(update_.param, own, param_);
        char* velocity = read(Slot::velocity);
        char* out = place(update_.partner, grad_);
        update_.dtype->lookahead(out, param, velocity, n_, *update_.coefficients);
        write(update_.partner, partner, out, grad_);
    }

    void swap_average() {
        char* param = params();
        std::swap_ranges(param, param + n_ * update_.dtype->itemsize, at(slot(Slot::average).data));
        write(update_.param, own, param, param_);
    }

    // Of an accelerated step, in which the user's own proximal map takes the place of the other one.
    void propose() {
        const char* param = params(false);
        descend(update_.candidate + begin_ * update_.dtype->itemsize, param);
    }

    void align() {
        const char* param = params(false);
        work_.sums[update_.first_sum + begin_ / block] =
            update_.dtype->stages.alignment(param, found(param), previous(param), n_);
    }

    void zero_grads() {
        if (!update_.partner.data) return;
        const std::size_t itemsize = itemsize_of(update_.partner);
        if (is_dense())
            std::memset(update_.partner.data + begin_ * itemsize, 0, n_ * itemsize);
        else
            clear(update_.partner.data, order(partner), itemsize, begin_, n_);
    }

  private:
    // Whose strides an operand has that is no slot; slots are in the state's order.
    enum Layout : unsigned { own, partner };

    // What an operand is in memory, and what it is in float32, where these are copies.
    struct Copies {
        Buffer<double> stored;
        Buffer<float> values;
    };

    const Operand& slot(Slot::Name name) const { return update_.slots[name]; }
    std::size_t itemsize_of(const Operand& operand) const { return operand.itemsize(*update_.dtype); }
    bool is_dense() const { return update_.n_dimensions == 0; }
    Order order(Layout layout) const {
        return {work_.dimensions.data() + update_.first_dimension, update_.n_dimensions, layout};
    }
    char* at(char* array) const { return array + begin_ * update_.dtype->itemsize; }
    float* scales(const Operand& operand) const {
        return operand.scales ? operand.scales + begin_ / scale_block : nullptr;
    }

    char* stored(const Operand& slot) const { return slot.data + begin_ * itemsize_of(slot); }

    // Where the elements of the block lie one after the other; nullptr where they do not.
    char* place_of(const Operand& operand, Layout layout) const {
        const std::size_t itemsize = itemsize_of(operand);
        if (!operand.data) return nullptr;
        if (is_dense()) return operand.data + begin_ * itemsize;
        const Dimension& last = work_.dimensions[update_.first_dimension + update_.n_dimensions - 1];
        const bool together = last.strides[layout] == static_cast<std::ptrdiff_t>(itemsize);
        if (!together || begin_ % last.size + n_ > last.size) return nullptr;
        return operand.data + offset(order(layout), begin_);
    }

    // Where the block of an operand lies as it is stored.
    char* stored(const Operand& operand, Layout layout, Copies& copies) {
        if (lies_[layout]) return lies_[layout];
        gather(copies.stored.bytes, operand.data, order(layout), itemsize_of(operand), begin_, n_);
        return copies.stored.bytes;
    }

    char* read(const Operand& operand, Layout layout, Copies& copies) {
        return loaded(operand, stored(operand, layout, copies), copies.values);
    }
    char* read(Slot::Name name) { return loaded(slot(name), stored(slot(name)), slots_[name]); }

    char* loaded(const Operand& operand, char* found, Buffer<float>& values) const {
        if (!operand.storage) return found;
        operand.storage->load(reinterpret_cast<float*>(values.bytes), found, scales(operand), n_);
        return values.bytes;
    }

    // Where to put the values of an operand that is written and not read.
    char* place(const Operand& operand, Copies& copies) const {
        if (operand.storage) return copies.values.bytes;
        return lies_[partner] ? lies_[partner] : copies.stored.bytes;
    }

    void write(const Operand& operand, Layout layout, const char* values, Copies& copies) {
        const std::size_t itemsize = itemsize_of(operand);
        char* to = lies_[layout] ? lies_[layout] : copies.stored.bytes;
        if (operand.storage)
            operand.storage->store(to, scales(operand), reinterpret_cast<const float*>(values), n_);
        else if (to != values)
            std::memcpy(to, values, n_ * itemsize);
        if (!lies_[layout]) scatter(to, operand.data, order(layout), itemsize, begin_, n_);
    }

    void write(const Operand& slot, const char* values) const {
        if (slot.storage)
            slot.storage->store(stored(slot), scales(slot), reinterpret_cast<const float*>(values), n_);
    }

    // The parameters in the dtype that is worked in: the master copy where there is one. Where somebody has
    // changed a parameter since, its master copy follows, if it may.
    char* params(bool may_follow = true) {
        if (!slot(Slot::master).data) return read(update_.param, own, param_);
        const Storage& storage = *update_.param.storage;
        const char* found = stored(update_.param, own, param_);
        auto* master = reinterpret_cast<float*>(at(slot(Slot::master).data));
        char* expected = prepared_.bytes;
        storage.store(expected, nullptr, master, n_);
        if (std::memcmp(expected, found, n_ * storage.itemsize) == 0) return reinterpret_cast<char*>(master);
        auto* values = reinterpret_cast<float*>(param_.values.bytes);
        storage.load(values, found, nullptr, n_);
        for (std::size_t i = 0, byte = 0; i < n_; ++i, byte += storage.itemsize)
            if (std::memcmp(expected + byte, found + byte, storage.itemsize) == 0) values[i] = master[i];
        if (!may_follow) return param_.values.bytes;
        std::memcpy(master, values, n_ * sizeof *master);
        return reinterpret_cast<char*>(master);
    }

    // As the rule is to see them.
    const char* gradients() {
        const char* grad = read(update_.partner, partner, grad_);
        const Pass& pass = work_.pass;
        if (!pass.prepares_grads()) return grad;
        const double bound =
            pass.wants(Setting::clip_value) ? (*pass.settings)[Setting::clip_value] : infinity;
        update_.dtype->stages.prepare(prepared_.bytes, grad, n_,
                                      {pass.grad_scale, pass.clip_coefficient, bound});
        return prepared_.bytes;
    }

    void narrow_step(char* param) {
        const Storage& storage = *slot(Slot::velocity).storage;
        const bool alike = update_.partner.storage == &storage && !work_.pass.prepares_grads();
        const char* grad = alike ? stored(update_.partner, partner, grad_) : gradients();
        (alike ? storage.step_alike : storage.step)[update_.coefficients->variant](
            param, grad, slot(Slot::velocity).data + begin_ * storage.itemsize, scales(slot(Slot::velocity)),
            n_, *update_.coefficients);
    }

    // Calls run(values) with the slots that the rule keeps, and stores what it makes of them.
    template <class Run>
    void with_slots(const Run& run) {
        char* values[Slot::n] = {};
        each_slot_of_the_rule(update_, [&](unsigned k, Slot::Name name) { values[k] = read(name); });
        run(values);
        each_slot_of_the_rule(update_, [&](unsigned k, Slot::Name name) {
            const Operand& of = slot(name);
            if (of.storage && all_slots[name].as == Slot::dithered)
                of.storage->dither(reinterpret_cast<float*>(values[k]), n_, update_.coefficients->dither);
            write(of, values[k]);
        });
    }

    // The way of formulas that are not plain.
    void update(char* param) {
        const Coefficients& c = *update_.coefficients;
        const char* grad = gradients();
        with_slots([&](char* const* slots) {
            update_.dtype->update[c.variant - n_plain_variants](param, grad, slots, n_, c);
        });
    }

    // Where gradient descent would go.
    void descend(char* to, const char* param) {
        const Coefficients& c = *update_.coefficients;
        const Stages& stages = update_.dtype->stages;
        stages.displace[c.variant](param, gradients(), nullptr, displacement_.bytes, n_, c);
        stages.subtract(to, param, displacement_.bytes, n_);
    }

    // The next iterate.
    const char* found(const char* param) {
        if (update_.candidate) return update_.candidate + begin_ * update_.dtype->itemsize;
        const Coefficients& c = *update_.coefficients;
        descend(before_.bytes, param);
        if (c.threshold != 0 || work_.pass.has_bounds)
            update_.dtype->stages.proximal(before_.bytes, n_, c.threshold, c.lower, c.upper);
        return before_.bytes;
    }

    // The iterate of the step before; the parameters, where there was none.
    const char* previous(const char* param) const {
        return update_.coefficients->is_first ? param : at(slot(Slot::iterate).data);
    }

    void accelerated_step(char* param) {
        update_.dtype->stages.advance(param, found(param), previous(param), at(slot(Slot::iterate).data), n_,
                                      work_.pass.restarts ? 0 : update_.coefficients->carried);
    }

    // Leaves the new parameters in `param`.
    void compensated_step(char* param) {
        const Coefficients& c = *update_.coefficients;
        const Stages& stages = update_.dtype->stages;
        const char* grad = gradients();
        char *displacement = displacement_.bytes, *before = before_.bytes;
        with_slots(
            [&](char* const* slots) { stages.displace[c.variant](param, grad, slots, displacement, n_, c); });
        std::memcpy(before, param, n_ * update_.dtype->itemsize);
        const Operand& compensated = slot(Slot::compensation);
        char* compensation = read(Slot::compensation);
        stages.add(displacement, compensation, n_);
        stages.subtract(param, before, displacement, n_);
        write(update_.param, own, param, param_);
        if (update_.param.storage)  // with the rounding that storing made
            update_.param.storage->load(reinterpret_cast<float*>(param), rounded(), nullptr, n_);
        stages.compensate(compensation, param, before, displacement, n_);
        write(compensated, compensation);
    }

    // What rounding took from an element is of no account once it is put onto a bound.
    void hold_in_box(char* param) {
        const std::size_t itemsize = update_.dtype->itemsize;
        const Operand& compensated = slot(Slot::compensation);
        char* before = before_.bytes;
        if (compensated.data) std::memcpy(before, param, n_ * itemsize);
        const Coefficients& c = *update_.coefficients;
        update_.dtype->stages.proximal(param, n_, 0, c.lower, c.upper);
        if (!compensated.data) return;
        char* compensation = read(Slot::compensation);
        for (std::size_t byte = 0; byte < n_ * itemsize; byte += itemsize)
            if (std::memcmp(before + byte, param + byte, itemsize) != 0)
                std::memset(compensation + byte, 0, itemsize);
        write(compensated, compensation);
    }

    // The parameters as write() has stored them.
    const char* rounded() const { return lies_[own] ? lies_[own] : param_.stored.bytes; }

    const Work& work_;
    const Update& update_;
    const std::size_t begin_, n_;
    char* const lies_[2];  // of each layout; nullptr where it is gathered and scattered
    Copies param_, grad_;
    Buffer<float> slots_[Slot::n];  // those that are stored in fewer bits
    Buffer<double> prepared_, displacement_, before_;
};

void run_block(const Work& work, const Update& update, std::size_t begin, std::size_t n,
               char* taken_out = nullptr) {
    Block current(work, update, begin, n, taken_out);
    switch (work.pass.task) {
        case Task::step:
            return current.step();
        case Task::lookahead:
            return current.lookahead();
        case Task::swap_average:
            return current.swap_average();
        case Task::zero_grads:
            return current.zero_grads();
        case Task::propose:
            return current.propose();
        case Task::align:
            return current.align();
    }
}

// Whether the operands of a step are used where they lie, and nothing else is to be done: all of it by one
// kernel, which needs no blocks.
bool is_dense_step(const Work& work, const Update& update) {
    return work.pass.task == Task::step && update.coefficients && work.pass.is_bare() &&
           update.coefficients->variant < n_whole_variants && update.n_dimensions == 0 &&
           !update.param.storage && !update.slots[Slot::compensation].data;
}

// Of a formula that is not plain.
void run_update_kernel(const Update& update, std::size_t begin, std::size_t n) {
    const Coefficients& c = *update.coefficients;
    const Storage* storage = update.slots[Slot::velocity].storage;
    const std::size_t offset = begin * update.dtype->itemsize;
    const std::size_t slot_offset = begin * update.slots[Slot::velocity].itemsize(*update.dtype);
    char* slots[Slot::n] = {};
    each_slot_of_the_rule(
        update, [&](unsigned k, Slot::Name name) { slots[k] = update.slots[name].data + slot_offset; });
    const UpdateKernel* kernels = storage ? storage->update : update.dtype->update;
    kernels[c.variant - n_plain_variants](update.param.data + offset, update.partner.data + offset, slots, n,
                                          c);
}

void run_blocks(const Work& work, const Update& update, std::size_t begin, std::size_t end) {
    for (; begin < end; begin += block) run_block(work, update, begin, std::min(block, end - begin));
}

// ---- gradients of the other memory order ----

// Their neighbours lie in the next row. Row by row, each cache line would be used for one element; so as many
// rows as make half a line are taken out together, some columns at a time. A whole line, and half the
// columns, would need as little of the stack; then a step of Adam took 2.3 times as long.
constexpr std::size_t half_line = 32, turned_columns = 256;

const Dimension* columns_of(const Work& work, const Update& update) {
    return work.dimensions.data() + update.first_dimension + update.n_dimensions - 1;
}

// Blocks that have scales, or sums, are those of run_blocks().
bool has_turned_gradients(const Work& work, const Update& update) {
    if (work.pass.task != Task::step || update.n_dimensions < 2 || !update.coefficients) return false;
    const std::size_t item = update.partner.itemsize(*update.dtype);
    const auto down = static_cast<std::size_t>((columns_of(work, update) - 1)->strides[1]);
    return can_turn(item) && down == item && !update.slots[Slot::velocity].scales;
}

template <std::size_t itemsize>
void run_turned(const Work& work, const Update& update, std::size_t row, std::size_t end) {
    alignas(64) char taken_out[turned_columns * half_line];
    const Dimension &columns = *columns_of(work, update), &rows = *(columns_of(work, update) - 1);
    const Order order = {work.dimensions.data() + update.first_dimension, update.n_dimensions, 1};
    for (std::size_t n = 0; row < end; row += n) {
        n = std::min({half_line / itemsize, end - row, rows.size - row % rows.size});
        for (std::size_t column = 0; column < columns.size; column += turned_columns) {
            const std::size_t length = std::min(turned_columns, columns.size - column);
            const std::size_t begin = row * columns.size + column;
            turn<itemsize>(taken_out, static_cast<std::ptrdiff_t>(length * itemsize),
                           update.partner.data + offset(order, begin), columns.strides[1], length, n);
            for (std::size_t i = 0; i < n; ++i)
                run_block(work, update, begin + i * columns.size, length, taken_out + i * length * itemsize);
        }
    }
}

// Rows that begin before or end after the elements are not whole.
void run_whole_rows(const Work& work, const Update& update, std::size_t begin, std::size_t end) {
    const std::size_t columns = columns_of(work, update)->size;
    const std::size_t first = (begin + columns - 1) / columns, last = std::max(end / columns, first);
    run_blocks(work, update, begin, std::min(first * columns, end));
    if (update.partner.itemsize(*update.dtype) == sizeof(float))
        run_turned<sizeof(float)>(work, update, first, last);
    else
        run_turned<sizeof(double)>(work, update, first, last);
    run_blocks(work, update, std::max(last * columns, begin), end);
}

}  // namespace

void run_update(const Work& work, const Update& update, std::size_t begin, std::size_t n) {
    if (is_dense_step(work, update)) {
        const Storage *grad = update.partner.storage, *velocity = update.slots[Slot::velocity].storage;
        const bool is_plain = update.coefficients->variant < n_plain_variants;
        if (!is_plain && !grad && !(velocity && !velocity->update[0]))
            return run_update_kernel(update, begin, n);
        if (is_plain && velocity && (!grad || grad == velocity)) return run_block(work, update, begin, n);
    }
    if (has_turned_gradients(work, update)) return run_whole_rows(work, update, begin, begin + n);
    run_blocks(work, update, begin, begin + n);
}

}  // namespace fast_momentum
