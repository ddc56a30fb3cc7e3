#include "plain/strided.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/compilers.hpp"
#include "plain/copy.hpp"

namespace fast_momentum {

namespace {

// What is worked on at a time (docs/decisions.md has what was tried): with nothing to copy, enough to make
// the other work of a tile vanish; copying along rows, little, to find it in L1 afterwards; where the
// neighbours of an operand lie in the next row, as in a gradient of the other memory order, several rows, to
// use more of each cache line.
struct Size {
    std::size_t bytes, columns;
};
constexpr Size in_place = {65536, 8192}, copied = {4096, 512}, transposed = {16384, 256};

// Rows as long as this are worked on one by one, and an operand whose rows are dense stays where it is.
constexpr std::size_t long_row = 64;

// Lines ahead of the one that is copied: where each is in another page, the hardware does not fetch them.
constexpr std::ptrdiff_t prefetched_lines = 16;

struct Tile {
    std::size_t rows, columns;
    char* corners[n_operands];
};

// The last two dimensions of a slice, cut into tiles.
class Grid {
  public:
    Grid(const Work& work, const Slice& slice)
        : slice_(slice),
          outer_(work.dimensions.data() + slice.first_dimension),
          n_outer_(slice.n_dimensions > 1 ? slice.n_dimensions - 2 : 0),
          rows_(slice.n_dimensions > 1 ? outer_[n_outer_] : Dimension{1, {}}),
          columns_(outer_[slice.n_dimensions - 1]),
          size_(size()),
          tile_columns_(std::min(columns_.size, size_.columns)),
          tile_rows_(std::min(rows_.size, size_.bytes / slice.itemsize / tile_columns_)) {
        n_tiles_ = down() * across();
        for (std::size_t d = 0; d < n_outer_; ++d) n_tiles_ *= outer_[d].size;
    }

    // Divides the tiles as evenly among the elements as whole numbers can: 0 for the first, all for n.
    std::size_t tile_at(std::size_t at) const {
        const std::size_t each = slice_.n / n_tiles_, longer = slice_.n % n_tiles_;
        const std::size_t of_longer = longer * (each + 1);
        return at < of_longer ? at / (each + 1) : longer + (at - of_longer) / each;
    }

    Tile tile(std::size_t i) const {
        const std::size_t column = i % across() * tile_columns_, row = i / across() % down() * tile_rows_;
        Tile tile = {
            std::min(tile_rows_, rows_.size - row), std::min(tile_columns_, columns_.size - column), {}};
        std::copy(slice_.operands, slice_.operands + n_operands, tile.corners);
        move(tile, rows_, row);
        move(tile, columns_, column);
        i /= across() * down();
        for (std::size_t d = n_outer_; d-- > 0; i /= outer_[d].size)
            move(tile, outer_[d], i % outer_[d].size);
        return tile;
    }

    bool row_by_row() const { return tile_columns_ >= long_row; }

    bool stays_in_place(unsigned operand) const {
        const auto item = static_cast<std::ptrdiff_t>(slice_.itemsize);
        const auto row = static_cast<std::ptrdiff_t>(columns_.size) * item;
        return columns_.strides[operand] == item &&
               (row_by_row() || rows_.size == 1 || rows_.strides[operand] == row);
    }

    std::ptrdiff_t row_stride(unsigned operand) const { return rows_.strides[operand]; }
    std::ptrdiff_t column_stride(unsigned operand) const { return columns_.strides[operand]; }

  private:
    std::size_t across() const { return (columns_.size + tile_columns_ - 1) / tile_columns_; }
    std::size_t down() const { return (rows_.size + tile_rows_ - 1) / tile_rows_; }

    Size size() const {
        const auto item = static_cast<std::ptrdiff_t>(slice_.itemsize);
        Size size = in_place;
        for (unsigned operand = 0; operand < n_operands; ++operand) {
            const std::ptrdiff_t down = std::abs(row_stride(operand)),
                                 along = std::abs(column_stride(operand));
            if (down != 0 && down < along) return transposed;
            if (column_stride(operand) != item || columns_.size < long_row) size = copied;
        }
        return size;
    }

    static void move(Tile& tile, const Dimension& dim, std::size_t steps) {
        for (unsigned operand = 0; operand < n_operands; ++operand)
            tile.corners[operand] += static_cast<std::ptrdiff_t>(steps) * dim.strides[operand];
    }

    const Slice& slice_;
    const Dimension* outer_;
    std::size_t n_outer_;
    Dimension rows_, columns_;
    Size size_;
    std::size_t tile_columns_, tile_rows_, n_tiles_;
};

// Copies between a tile of an array and a buffer, along the columns or the rows, whichever are closer
// together in the array; but in long runs rather than in short ones.
template <std::size_t itemsize, bool gather>
void copy_tile(char* buffer, char* array, std::ptrdiff_t row_stride, std::ptrdiff_t column_stride,
               std::size_t rows, std::size_t columns) {
    std::ptrdiff_t inner = column_stride, outer = row_stride;
    auto buffer_inner = static_cast<std::ptrdiff_t>(itemsize);
    auto buffer_outer = static_cast<std::ptrdiff_t>(itemsize * columns);
    constexpr std::size_t short_run = 8;
    if (rows > 1 &&
        (std::abs(row_stride) < std::abs(column_stride) || (columns < short_run && columns < rows))) {
        std::swap(inner, outer);
        std::swap(buffer_inner, buffer_outer);
        std::swap(rows, columns);
    }
    constexpr auto item = static_cast<std::ptrdiff_t>(itemsize);
    if (can_turn(itemsize) && inner == item && buffer_outer == item) {
        if (gather) return turn<itemsize>(buffer, buffer_inner, array, outer, rows, columns);
        return turn<itemsize>(array, outer, buffer, buffer_inner, columns, rows);
    }
    for (std::size_t i = 0; i < rows; ++i, buffer += buffer_outer, array += outer) {
        PREFETCH(array + prefetched_lines * outer);
        if (gather)
            copy_items<itemsize>(buffer, buffer_inner, array, inner, columns);
        else
            copy_items<itemsize>(array, inner, buffer, buffer_inner, columns);
    }
}

template <std::size_t itemsize>
void run_tiles(const Work& work, const Slice& slice, const Grid& grid, std::size_t begin, std::size_t end) {
    alignas(64) char buffers[n_operands][transposed.bytes];
    bool stays[n_operands];
    for (unsigned operand = 0; operand < n_operands; ++operand) stays[operand] = grid.stays_in_place(operand);
    for (std::size_t i = begin; i < end; ++i) {
        const Tile tile = grid.tile(i);
        char* at[n_operands];
        std::ptrdiff_t steps[n_operands];  // from row to row
        for (unsigned operand = 0; operand < n_operands; ++operand) {
            at[operand] = stays[operand] ? tile.corners[operand] : buffers[operand];
            steps[operand] = stays[operand] ? grid.row_stride(operand)
                                            : static_cast<std::ptrdiff_t>(tile.columns * itemsize);
            if (!stays[operand] && work.access.read[operand])
                copy_tile<itemsize, true>(buffers[operand], tile.corners[operand], grid.row_stride(operand),
                                          grid.column_stride(operand), tile.rows, tile.columns);
        }
        const std::size_t calls = grid.row_by_row() ? tile.rows : 1;
        const std::size_t n = tile.rows * tile.columns / calls;
        for (std::size_t row = 0; row < calls; ++row) {
            slice.kernel(at[0], at[1], at[2], n, *slice.coefficients);
            for (unsigned operand = 0; operand < n_operands; ++operand) at[operand] += steps[operand];
        }
        for (unsigned operand = 0; operand < n_operands; ++operand)
            if (!stays[operand] && work.access.written[operand])
                copy_tile<itemsize, false>(buffers[operand], tile.corners[operand], grid.row_stride(operand),
                                           grid.column_stride(operand), tile.rows, tile.columns);
    }
}

}  // namespace

void run_strided(const Work& work, const Slice& slice, std::size_t begin, std::size_t n) {
    const Grid grid(work, slice);
    const std::size_t first = grid.tile_at(begin), end = grid.tile_at(begin + n);
    if (slice.itemsize == sizeof(float)) run_tiles<sizeof(float)>(work, slice, grid, first, end);
    if (slice.itemsize == sizeof(double)) run_tiles<sizeof(double)>(work, slice, grid, first, end);
}

}  // namespace fast_momentum
