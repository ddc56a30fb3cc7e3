// Do these memory regions share an element? Exact, with bounded work. Plain data, no Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fast_momentum {

// Of any stride, also of the smallest number, which has no opposite.
inline std::uintptr_t magnitude(std::ptrdiff_t stride) {
    const auto bits = static_cast<std::uintptr_t>(stride);
    return stride < 0 ? 0 - bits : bits;
}

// The bounds of one array.
class Span {
  public:
    std::uintptr_t low;

    Span() = default;
    Span(std::uintptr_t low_, std::uintptr_t length, bool written)
        : low(low_), length_and_written_(length << 1 | std::uintptr_t(written)) {}
    std::uintptr_t high() const { return low + (length_and_written_ >> 1); }
    bool written() const { return length_and_written_ & 1; }

  private:
    std::uintptr_t length_and_written_;
};

// The bounds of all arrays of a call. The last ones that did not meet are remembered: a step mostly works on
// the arrays of the step before, and then nothing has to be sorted to say so again.
class Bounds {
  public:
    // A call that adds at most so many: without room to be made, adding is a few instructions.
    void begin(std::size_t most) {
        if (spans_.size() < most) spans_.resize(most);
        end_ = spans_.data();
    }
    void add(const Span& span) { *end_++ = span; }
    // Do those of two arrays meet, one of which is written?
    bool meet();

  private:
    Span* end_ = nullptr;      // of those added, in spans_
    std::size_t n_apart_ = 0;  // of apart_
    std::vector<Span> spans_, apart_, sorted_, scratch_;
};

// The elements of one array; strides in bytes.
struct Region {
    const char* data;
    std::size_t itemsize;
    int ndim;
    const std::ptrdiff_t* shape;
    const std::ptrdiff_t* strides;
    bool written;

    bool empty() const;
    Span span() const;  // of a region that is not empty
};

enum class Verdict { disjoint, overlapping, unknown };

struct Clash {
    Verdict verdict;
    std::size_t first, second;  // of `regions`
};

// The first pair found that shares an element, one of the two being written; or one that could be neither
// proved nor disproved with the work allowed.
Clash find_clash(const std::vector<Region>& regions);

// Do two elements of one region share memory?
Verdict self_overlap(const Region& region);

}  // namespace fast_momentum
