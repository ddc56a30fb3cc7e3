// Which rows of an array have a gradient, those of one row together. Plain data, no Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fast_momentum {

class Rows {
  public:
    struct Item {
        std::uint64_t row;       // of the array
        std::uint64_t position;  // among the gradients
    };

    Rows(std::size_t n, std::size_t row_elements) : items(n), row_elements_(row_elements) {}

    std::vector<Item> items;

    // By row, those of one row in the order in which they came. `n_rows` are those of the array.
    void sort(std::uint64_t n_rows);

    // ---- afterwards ----

    std::size_t row_elements() const { return row_elements_; }
    std::size_t n_distinct() const { return begins_.size() - 1; }
    // The items of a distinct row.
    const Item* begin(std::size_t distinct) const { return items.data() + begins_[distinct]; }
    const Item* end(std::size_t distinct) const { return begin(distinct + 1); }

    // The sum for each distinct row, in a dense array of the dtype that is worked in, once it was formed.
    std::vector<double> sums;

  private:
    std::size_t row_elements_;
    std::vector<std::size_t> begins_;  // of each distinct row, and the end
};

}  // namespace fast_momentum
