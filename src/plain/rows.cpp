#include "plain/rows.hpp"

#include <algorithm>

namespace fast_momentum {

namespace {

// Fewer are sorted by comparisons: the digits of others are counted, which takes some time for none.
constexpr std::size_t few = 64;
constexpr unsigned most_digit_bits = 11;

bool comes_before(const Rows::Item& a, const Rows::Item& b) {
    return a.row != b.row ? a.row < b.row : a.position < b.position;
}

unsigned bits_of(std::uint64_t largest) {
    unsigned bits = 0;
    for (; largest > 0; largest >>= 1) ++bits;
    return bits;
}

// By one digit, the rest in the order in which it comes.
void sort_by_digit(const std::vector<Rows::Item>& from, std::vector<Rows::Item>& to, unsigned shift,
                   unsigned bits) {
    const std::uint64_t mask = (std::uint64_t(1) << bits) - 1;
    std::vector<std::size_t> places(mask + 2, 0);
    for (const Rows::Item& item : from) ++places[(item.row >> shift & mask) + 1];
    for (std::size_t digit = 1; digit <= mask; ++digit) places[digit] += places[digit - 1];
    for (const Rows::Item& item : from) to[places[item.row >> shift & mask]++] = item;
}

void sort_by_digits(std::vector<Rows::Item>& items, unsigned bits) {
    const unsigned passes = (bits + most_digit_bits - 1) / most_digit_bits;
    const unsigned digit_bits = (bits + passes - 1) / passes;
    std::vector<Rows::Item> others(items.size());
    for (unsigned pass = 0; pass < passes; ++pass) {
        sort_by_digit(items, others, pass * digit_bits, digit_bits);
        items.swap(others);
    }
}

}  // namespace

void Rows::sort(std::uint64_t n_rows) {
    const auto is_before = [](const Item& a, const Item& b) { return a.row < b.row; };
    if (!std::is_sorted(items.begin(), items.end(), is_before)) {
        if (items.size() < few)
            std::sort(items.begin(), items.end(), comes_before);
        else
            sort_by_digits(items, bits_of(n_rows - 1));
    }
    begins_.clear();
    for (std::size_t i = 0; i < items.size(); ++i)
        if (i == 0 || items[i].row != items[i - 1].row) begins_.push_back(i);
    begins_.push_back(items.size());
}

}  // namespace fast_momentum
