#include "plain/overlap.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

namespace fast_momentum {

namespace {

// What one call may spend, on arrays looked at while groups are split, and on pairs and steps of the exact
// solver: a few tens of milliseconds each. Among more arrays than that each one may be looked at so often.
constexpr long work_allowed = 2'000'000, looks_allowed = 20;

// ---- bounds ----

constexpr std::size_t radix_from = 256;  // below, std::sort is as fast

// Radix sort by `low`, over the bits in which the addresses differ: 10 ns an array, std::sort takes 50 to
// 130.
void sort_by_low(std::vector<Span>& spans, std::vector<Span>& scratch) {
    if (spans.size() < radix_from) {
        std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.low < b.low; });
        return;
    }
    constexpr unsigned digit_bits = 11;
    constexpr std::size_t digits = std::size_t(1) << digit_bits;
    std::uintptr_t differing = 0;
    for (const Span& span : spans) differing |= span.low ^ spans.front().low;
    scratch.resize(spans.size());
    unsigned shift = 0;
    while (differing && !(differing >> shift & 1)) ++shift;
    for (; shift < 64 && differing >> shift; shift += digit_bits) {
        const auto digit = [&](const Span& span) { return span.low >> shift & (digits - 1); };
        std::size_t starts[digits] = {};
        for (const Span& span : spans) ++starts[digit(span)];
        std::size_t start = 0;
        for (std::size_t& count : starts) start += std::exchange(count, start);
        for (const Span& span : spans) scratch[starts[digit(span)]++] = span;
        spans.swap(scratch);
    }
}

// ---- exact: is there a solution in integers? ----

// One term, step*x with 0 <= x <= bound.
struct Term {
    std::uintptr_t step, bound;
};

// Does some choice of the x make the terms add up to `target`? A search from the largest step down, in which
// the sum and the greatest common divisor of what remains leave few choices for each x.
class Solver {
  public:
    Solver(std::vector<Term> terms, long& work) : work_(work) {
        std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) { return a.step > b.step; });
        for (const Term& term : terms) {
            if (term.bound == 0 || term.step == 0) continue;
            if (!terms_.empty() && terms_.back().step == term.step)
                terms_.back().bound += term.bound;
            else
                terms_.push_back(term);
        }
        largest_.assign(terms_.size() + 1, 0);
        divisor_.assign(terms_.size() + 1, 0);
        for (std::size_t k = terms_.size(); k-- > 0;) {
            largest_[k] = largest_[k + 1] + terms_[k].step * terms_[k].bound;
            divisor_[k] = std::gcd(divisor_[k + 1], terms_[k].step);
        }
    }

    Verdict solve(std::uintptr_t target, std::size_t k = 0) {
        if (--work_ < 0) return Verdict::unknown;
        if (target == 0) return Verdict::overlapping;
        if (target > largest_[k] || target % divisor_[k] != 0) return Verdict::disjoint;
        const auto [step, bound] = terms_[k];
        const std::uintptr_t rest = largest_[k + 1];
        const std::uintptr_t least = target > rest ? (target - rest + step - 1) / step : 0;
        const std::uintptr_t most = std::min(bound, target / step);
        for (std::uintptr_t x = least; x <= most; ++x) {
            const Verdict verdict = solve(target - x * step, k + 1);
            if (verdict != Verdict::disjoint) return verdict;
        }
        return Verdict::disjoint;
    }

  private:
    std::vector<Term> terms_;
    std::vector<std::uintptr_t> largest_, divisor_;  // of the terms from k on
    long& work_;
};

std::uintptr_t steps(const Region& region, int d) {
    return static_cast<std::uintptr_t>(region.shape[d] - 1);
}

// What all addresses of the region are multiples of, up to its itemsize.
std::uintptr_t granule(const Region& region) {
    std::uintptr_t divisor =
        std::gcd<std::uintptr_t>(reinterpret_cast<std::uintptr_t>(region.data), region.itemsize);
    for (int d = 0; d < region.ndim; ++d)
        if (region.shape[d] > 1) divisor = std::gcd(divisor, magnitude(region.strides[d]));
    return divisor;
}

// Two regions share a word, of which elements consist, where
//     low_a + sum(stride*x) + word*i = low_b + sum(stride*y) + word*j.
// With y and j counted from the far end, every sign is positive.
Verdict share(const Region& a, const Region& b, long& work) {
    const Span in_a = a.span(), in_b = b.span();
    if (in_a.high() <= in_b.low || in_b.high() <= in_a.low) return Verdict::disjoint;
    const std::uintptr_t word = std::gcd(granule(a), granule(b));
    std::vector<Term> terms = {{word, (a.itemsize + b.itemsize) / word - 2}};
    for (const Region* region : {&a, &b})
        for (int d = 0; d < region->ndim; ++d)
            terms.push_back({magnitude(region->strides[d]), steps(*region, d)});
    return Solver(std::move(terms), work).solve(in_b.high() - word - in_a.low);
}

// ---- groups ----

using Group = std::vector<std::size_t>;

struct Interval {
    std::uintptr_t begin, end;
    std::size_t region;
};

// Divides regions into groups that cannot touch one another until pairs are left that need the exact solver.
class Search {
  public:
    explicit Search(const std::vector<Region>& regions)
        : regions_(regions), looks_(work_allowed + looks_allowed * static_cast<long>(regions.size())) {}

    Clash within(const Group& group) {
        const bool written =
            std::any_of(group.begin(), group.end(), [&](auto i) { return regions_[i].written; });
        if (group.size() < 2 || !written) return none;
        for (const std::uintptr_t modulus : moduli(group)) {
            looks_ -= static_cast<long>(group.size());
            if (looks_ < 0) return clash(Verdict::unknown, group[0], group[1]);
            const std::vector<Group> parts = by_residue(group, modulus);
            if (parts.size() == 1) continue;
            for (const Group& part : parts) {
                const Clash found = within(part);
                if (found.verdict != Verdict::disjoint) return found;
            }
            return none;
        }
        return pair_by_pair(group);
    }

  private:
    static constexpr Clash none = {Verdict::disjoint, 0, 0};

    static Clash clash(Verdict verdict, std::size_t a, std::size_t b) {
        return {verdict, std::min(a, b), std::max(a, b)};
    }

    // One above all addresses, so that their residues are their bounds, the strides of the group, largest
    // first, and what divides all of them.
    std::vector<std::uintptr_t> moduli(const Group& group) const {
        constexpr std::size_t most = 8;
        std::vector<std::uintptr_t> strides;
        for (const std::size_t i : group)
            for (int d = 0; d < regions_[i].ndim; ++d)
                if (regions_[i].shape[d] > 1) strides.push_back(magnitude(regions_[i].strides[d]));
        std::sort(strides.begin(), strides.end(), std::greater<>());
        strides.erase(std::unique(strides.begin(), strides.end()), strides.end());
        if (!strides.empty() && strides.back() == 0) strides.pop_back();
        std::uintptr_t divisor = 0;
        for (const std::uintptr_t stride : strides) divisor = std::gcd(divisor, stride);
        strides.resize(std::min(strides.size(), most));
        if (divisor != 0) strides.push_back(divisor);
        strides.insert(strides.begin(), UINTPTR_MAX);
        return strides;
    }

    // Strides that are multiples of the modulus leave the residue of an address as it is, so a region
    // occupies an interval of residues. Columns of a matrix are told apart by theirs.
    std::vector<Group> by_residue(const Group& group, std::uintptr_t modulus) const {
        std::vector<Interval> intervals;
        std::uintptr_t wrapped = 0;  // residues below this are reached past the modulus
        for (const std::size_t i : group) {
            const Region& region = regions_[i];
            std::uintptr_t length = region.itemsize;
            for (int d = 0; d < region.ndim; ++d)
                if (magnitude(region.strides[d]) % modulus)
                    length += magnitude(region.strides[d]) * steps(region, d);
            if (length >= modulus) return {group};
            const std::uintptr_t begin = region.span().low % modulus;
            intervals.push_back({begin, begin + length, i});
            if (begin + length > modulus) wrapped = std::max(wrapped, begin + length - modulus);
        }
        std::vector<Group> parts = chains(intervals);
        // What wraps round lies in the last group; the first ones may meet it there.
        const auto meets = [&](std::size_t i) { return regions_[i].span().low % modulus < wrapped; };
        while (parts.size() > 1 && std::any_of(parts.front().begin(), parts.front().end(), meets)) {
            parts.back().insert(parts.back().end(), parts.front().begin(), parts.front().end());
            parts.erase(parts.begin());
        }
        return parts;
    }

    // Groups of intervals in which each meets the one before it or an earlier one.
    static std::vector<Group> chains(std::vector<Interval>& intervals) {
        std::sort(intervals.begin(), intervals.end(),
                  [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
        std::vector<Group> groups;
        std::uintptr_t end = 0;
        for (const Interval& interval : intervals) {
            if (groups.empty() || interval.begin >= end) groups.emplace_back();
            groups.back().push_back(interval.region);
            end = std::max(end, interval.end);
        }
        return groups;
    }

    Clash pair_by_pair(const Group& group) {
        for (std::size_t i = 0; i < group.size(); ++i)
            for (std::size_t j = i + 1; j < group.size(); ++j) {
                if (--work_ < 0) return clash(Verdict::unknown, group[i], group[j]);
                const Region &a = regions_[group[i]], &b = regions_[group[j]];
                if (!a.written && !b.written) continue;
                const Verdict verdict = share(a, b, work_);
                if (verdict != Verdict::disjoint) return clash(verdict, group[i], group[j]);
            }
        return none;
    }

    const std::vector<Region>& regions_;
    long looks_, work_ = work_allowed;
};

}  // namespace

bool Bounds::meet() {
    const auto n = static_cast<std::size_t>(end_ - spans_.data());
    if (n == n_apart_ && std::memcmp(spans_.data(), apart_.data(), n * sizeof(Span)) == 0) return false;
    sorted_.assign(spans_.data(), end_);
    sort_by_low(sorted_, scratch_);
    std::uintptr_t end = 0, end_of_written = 0;
    for (const Span& span : sorted_) {
        if (span.low < (span.written() ? end : end_of_written)) return true;
        end = std::max(end, span.high());
        if (span.written()) end_of_written = std::max(end_of_written, span.high());
    }
    apart_.swap(spans_);
    n_apart_ = n;
    return false;
}

bool Region::empty() const {
    return std::find(shape, shape + ndim, 0) != shape + ndim;
}

Span Region::span() const {
    std::uintptr_t low = reinterpret_cast<std::uintptr_t>(data), high = low + itemsize;
    for (int d = 0; d < ndim; ++d) {
        const std::uintptr_t extent = magnitude(strides[d]) * steps(*this, d);
        if (strides[d] < 0)
            low -= extent;
        else
            high += extent;
    }
    return {low, high - low, written};
}

Clash find_clash(const std::vector<Region>& regions) {
    Group group;
    for (std::size_t i = 0; i < regions.size(); ++i)
        if (!regions[i].empty()) group.push_back(i);
    return Search(regions).within(group);
}

Verdict self_overlap(const Region& region) {
    if (region.empty()) return Verdict::disjoint;
    std::vector<Term> terms;
    for (int d = 0; d < region.ndim; ++d)
        if (region.shape[d] > 1) terms.push_back({magnitude(region.strides[d]), steps(region, d)});
    std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) { return a.step < b.step; });

    // Nearly always each stride steps over all that the smaller ones reach.
    std::uintptr_t reach = region.itemsize;
    bool nested = true;
    for (const Term& term : terms) {
        nested = nested && term.step >= reach;
        reach += term.step * term.bound;
    }
    if (nested) return Verdict::disjoint;

    // Two elements differ first in dimension k, by 1 + x steps, and by any number of steps in those after it:
    //     (1 + x)*step_k + sum(step*(y - bound)) + word*(i - j) = 0  with 0 <= y <= 2*bound.
    long work = work_allowed;
    const std::uintptr_t word = granule(region), words = region.itemsize / word - 1;
    for (std::size_t k = 0; k < terms.size(); ++k) {
        std::vector<Term> equation = {{word, 2 * words}, {terms[k].step, terms[k].bound - 1}};
        std::uintptr_t target = word * words;
        for (std::size_t j = k + 1; j < terms.size(); ++j) {
            equation.push_back({terms[j].step, 2 * terms[j].bound});
            target += terms[j].step * terms[j].bound;
        }
        if (target < terms[k].step) continue;
        const Verdict verdict = Solver(std::move(equation), work).solve(target - terms[k].step);
        if (verdict != Verdict::disjoint) return verdict;
    }
    return Verdict::disjoint;
}

}  // namespace fast_momentum
