// The kernels' contract in C++, where Python cannot reach: all instruction sets and both devices give the same results,
// workspaces of exactly the bytes asked for are enough, and the pieces that kernels are made of.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/levels.h"
#include "cpu/parallel.h"

using namespace samg;

namespace {

// Float32 sums of a dozen values of order 1, in another order or with other roundings in between.
constexpr double rounding = 2e-6;

template <class T>
using Values = std::vector<T>;

std::mt19937& generator() {
    static std::mt19937 made(7);
    return made;
}

Values<float> noise(std::size_t count, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    Values<float> values(count);
    for (float& value : values) value = normal(generator());
    return values;
}

template <class T>
Values<T> whole(std::size_t count, int low, int high) {
    std::uniform_int_distribution<int> uniform(low, high);
    Values<T> values(count);
    for (T& value : values) value = static_cast<T>(uniform(generator()));
    return values;
}

/// Taps that mix `count` neighbours, as a resize's do; weights sum to `sum`.
struct OwnTaps {
    Values<std::int32_t> source;
    Values<float> weight;
    int length, count;

    OwnTaps(int n_in, int n_out, int taps, float sum = 1) : length(n_out), count(taps) {
        for (int t = 0; t < taps; ++t) {
            for (int i = 0; i < n_out; ++i) {
                const int first = i * std::max(n_in - taps, 0) / n_out, at = first + t;
                source.push_back(std::min(at, n_in - 1));
                const float share = t == 0 ? 1 - 0.125f * static_cast<float>(std::min(taps, n_in) - 1) : 0.125f;
                weight.push_back(at < n_in ? sum * share : 0);
            }
        }
    }

    Taps view() const { return {length, count, source.data(), weight.data()}; }
};

/// Results of a call, as numbers: floats to rounding, the others exactly.
struct Results {
    Values<float> rounded;
    Values<std::int64_t> exact;

    template <class T>
    void add(const Values<T>& values) {
        for (const T value : values) exact.push_back(static_cast<std::int64_t>(value));
    }
    void add(const Values<float>& values) {
        for (const float value : values) rounded.push_back(value);
    }
};

void check_same(const Results& got, const Results& wanted, double tolerance = rounding) {
    CHECK(got.exact == wanted.exact);
    REQUIRE(got.rounded.size() == wanted.rounded.size());
    double most = 0;
    for (std::size_t i = 0; i < got.rounded.size(); ++i) {
        const bool same =
            got.rounded[i] == wanted.rounded[i] || (std::isnan(got.rounded[i]) && std::isnan(wanted.rounded[i]));
        most = std::max(most, same ? 0 : std::fabs(double(got.rounded[i]) - double(wanted.rounded[i])));
        CHECK_FALSE(std::isnan(most));
    }
    CHECK(most <= tolerance);
}

/// A workspace between guards, dirty, that begins `offset` alignments into memory aligned for more.
class Guarded {
  public:
    Guarded(std::size_t bytes, std::size_t offset) : memory_(bytes + (offset + 3) * alignment + 4096, guard) {
        const std::size_t start = reinterpret_cast<std::uintptr_t>(memory_.data());
        begin_ = (start + 2048) / 1024 * 1024 - start + offset * alignment;
        end_ = begin_ + bytes;
        std::fill(memory_.begin() + at(begin_), memory_.begin() + at(end_), leftover);
    }

    void* data() { return memory_.data() + begin_; }

    bool intact() const {
        const auto is_guard = [](unsigned char byte) { return byte == guard; };
        return std::all_of(memory_.begin(), memory_.begin() + at(begin_), is_guard) &&
               std::all_of(memory_.begin() + at(end_), memory_.end(), is_guard);
    }

  private:
    static constexpr unsigned char guard = 0x5c, leftover = 0xab;
    static std::ptrdiff_t at(std::size_t index) { return static_cast<std::ptrdiff_t>(index); }

    Values<unsigned char> memory_;
    std::size_t begin_ = 0, end_ = 0;
};

/// Overloads of one operation, to call it by its arguments.
#define OPERATION(name, Arguments)                                                       \
    void run_cpu(const cpu::Kernels& kernels, const Arguments& arguments, int threads) { \
        const std::size_t bytes = kernels.name.workspace(arguments, threads);            \
        for (const std::size_t offset : {0, 1, 3}) {                                     \
            Guarded memory(bytes, offset);                                               \
            kernels.name.run(arguments, memory.data(), threads);                         \
            CHECK(memory.intact());                                                      \
        }                                                                                \
    }                                                                                    \
    void run_cuda(const Arguments& arguments) {                                          \
        Guarded memory(cuda::workspace(arguments), 1);                                   \
        cuda::name(arguments, memory.data(), nullptr);                                   \
        CHECK(memory.intact());                                                          \
    }

OPERATION(preprocess, Preprocess)
OPERATION(similarity_map, SimilarityMap)
OPERATION(topk_points, TopkPoints)
OPERATION(resize_logits, ResizeLogits)
OPERATION(prompt_assembly, PromptAssembly)
OPERATION(apply_mask, ApplyMask)
#undef OPERATION

/// Calls `of` with each way to run an operation that can run here, and holds their results against the first one's.
/// `of` takes a function that runs arguments.
template <class Of>
void check_all_the_same(Of of, double tolerance = rounding) {
    const cpu::Level& baseline = cpu::levels()[cpu::level_count() - 1];
    const Results wanted = of([&](const auto& arguments) { run_cpu(baseline.kernels, arguments, 1); });
    for (int i = 0; i < cpu::level_count(); ++i) {
        const cpu::Level& level = cpu::levels()[i];
        if (!level.runs_here()) continue;
        for (const int threads : {1, 3}) {
            CAPTURE(level.name);
            CAPTURE(threads);
            check_same(of([&](const auto& arguments) { run_cpu(level.kernels, arguments, threads); }), wanted,
                       tolerance);
        }
    }
    INFO("the CUDA kernels");
    check_same(of([&](const auto& arguments) { run_cuda(arguments); }), wanted, tolerance);
}

std::size_t size(int a, int b = 1, int c = 1, int d = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c) *
           static_cast<std::size_t>(d);
}

/// The definition of float to half: the nearest half, of two the one whose last bit is 0.
std::uint16_t nearest_half(float value);
float half_value(std::uint16_t bits);

Values<std::uint16_t> halves(const Values<float>& values) {
    Values<std::uint16_t> bits;
    for (const float value : values) bits.push_back(nearest_half(value));
    return bits;
}

float half_value(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float value = std::ldexp(static_cast<float>(mantissa), -24);
    if (exponent > 0) value = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    if (exponent == 31) {
        value = mantissa == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    }
    return bits >> 15 != 0 ? -value : value;
}

std::uint16_t nearest_half(float value) {
    const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00);
    const double magnitude = std::fabs(double(value));
    if (magnitude >= 65520) return static_cast<std::uint16_t>(sign | 0x7c00);
    const auto at = [](std::uint32_t bits) {
        return bits == 0x7c00 ? 65536.0 : double(half_value(static_cast<std::uint16_t>(bits)));
    };
    std::uint32_t low = 0, high = 0x7c00;  // halves rise with their bits
    while (high - low > 1) {
        const std::uint32_t middle = (low + high) / 2;
        (at(middle) <= magnitude ? low : high) = middle;
    }
    const double below = magnitude - at(low), above = at(high) - magnitude;
    return static_cast<std::uint16_t>(sign | (below < above || (below == above && low % 2 == 0) ? low : high));
}

}  // namespace

TEST_CASE("preprocess is the same everywhere") {
    for (const int taps : {1, 2, 3, 4, 5}) {
        CAPTURE(taps);
        for (const Element element : {Element::float32, Element::float16}) {
            const int batch = 2, height = 19, width = 23;
            const Values<std::uint8_t> frames = whole<std::uint8_t>(size(batch, height, width, 3), 0, 255);
            const Values<float> levels = noise(size(3, 256));
            const int float_taps = std::min(taps, 2);  // a resize without antialias has no more
            const OwnTaps rows(height, 11, taps, 1 << 22), columns(width, 17, taps, 1 << 22);
            const OwnTaps float_rows(height, 18, float_taps), float_columns(width, 9, float_taps);
            const auto of = [&](const auto& run) {
                Values<std::uint16_t> half[2];
                Values<float> single[2];
                Preprocess arguments{batch, height, width, frames.data(), 2, {}};
                arguments.inputs[0] = {17, Resize::uint8, rows.view(), columns.view(), levels.data(), element, {}};
                arguments.inputs[1] = {
                    18, Resize::float32, float_rows.view(), float_columns.view(), levels.data(), element, {}};
                for (int i = 0; i < 2; ++i) {
                    const std::size_t count = size(batch, 3, arguments.inputs[i].side, arguments.inputs[i].side);
                    half[i].assign(count, 0xabab);
                    single[i].assign(count, -77);
                    arguments.inputs[i].out =
                        element == Element::float16 ? static_cast<void*>(half[i].data()) : single[i].data();
                }
                run(arguments);
                Results results;
                for (int i = 0; i < 2; ++i) {
                    if (element == Element::float16) single[i].clear();
                    for (const std::uint16_t bits : half[i]) {
                        if (element == Element::float16) single[i].push_back(half_value(bits));
                    }
                    results.add(single[i]);
                }
                return results;
            };
            // Where a float sum is between two halves, its rounding decides: values up to 4 are 2^-9 apart there
            check_all_the_same(of, element == Element::float16 ? 1.0 / 512 : rounding);
        }
    }
}

TEST_CASE("similarity_map is the same everywhere") {
    struct Case {
        int batch, count, sam_channels, dino_channels, grid, dino_grid, taps;
        bool shared;
        Element element;
    };
    for (const Case& each :
         {Case{1, 1, 5, 6, 7, 4, 1, true, Element::float32}, Case{2, 3, 8, 3, 6, 6, 2, false, Element::float16},
          Case{4, 9, 4, 9, 5, 9, 3, true, Element::float32}, Case{2, 64, 3, 4, 8, 3, 5, false, Element::float16}}) {
        CAPTURE(each.count);
        const int height = 11, width = 7;
        Values<float> sam = noise(size(each.batch, each.sam_channels, each.grid, each.grid));
        Values<float> dino = noise(size(each.batch, each.dino_channels, each.dino_grid, each.dino_grid));
        for (float& value : dino) value += 3;  // so that no mixture of cells cancels out
        const Values<std::uint16_t> half_sam = halves(sam), half_dino = halves(dino);
        const int sets = each.shared ? 1 : each.batch;
        const Values<float> sam_features = noise(size(sets, each.count, each.sam_channels), 0.3f);
        const Values<float> dino_features = noise(size(sets, each.count, each.dino_channels), 0.3f);
        const OwnTaps lift(each.dino_grid, each.grid, each.dino_grid == each.grid ? 1 : 2);
        const OwnTaps rows(each.grid, height, each.taps), columns(each.grid, width, each.taps);
        OwnTaps identity(each.grid, each.grid, 1);
        for (int i = 0; i < each.grid; ++i) identity.source[static_cast<std::size_t>(i)] = i;
        const auto of = [&](const auto& run) {
            Values<float> out(size(each.batch, each.count, height, width), -77);
            const bool half = each.element == Element::float16;
            const auto stride = [&](int channels) { return each.shared ? 0 : std::ptrdiff_t{each.count} * channels; };
            const void* const cells[] = {half ? static_cast<const void*>(half_sam.data()) : sam.data(),
                                         half ? static_cast<const void*>(half_dino.data()) : dino.data()};
            SimilarityMap arguments;
            arguments.batch = each.batch;
            arguments.count = each.count;
            arguments.sam = {each.sam_channels, each.grid,           each.element,
                             cells[0],          sam_features.data(), stride(each.sam_channels)};
            arguments.dino = {each.dino_channels, each.dino_grid,       each.element,
                              cells[1],           dino_features.data(), stride(each.dino_channels)};
            arguments.lift = each.dino_grid == each.grid ? identity.view() : lift.view();
            arguments.rows = rows.view();
            arguments.columns = columns.view();
            arguments.out = out.data();
            run(arguments);
            Results results;
            results.add(out);
            return results;
        };
        check_all_the_same(of);
    }
}

TEST_CASE("topk_points is the same everywhere") {
    struct Case {
        int batch, height, width, k;
        bool boxed;
    };
    // The last one is larger than what one block of the CUDA kernels looks through.
    for (const Case& each :
         {Case{1, 1, 1, 1, false}, Case{3, 9, 41, 64, true}, Case{2, 8, 8, 64, false}, Case{2, 131, 260, 64, true}}) {
        CAPTURE(each.width);
        const int stride = each.height * each.width + 5, point_stride = 2 * each.k + 3;
        Values<float> values = noise(size(each.batch, stride));
        for (float& value : values) value = std::round(value * 3);  // ties
        for (std::size_t i = 0; i < values.size(); i += 7) values[i] = std::numeric_limits<float>::quiet_NaN();
        for (std::size_t i = 3; i < values.size(); i += 11) values[i] = -0.0f;
        Values<std::int32_t> boxes = whole<std::int32_t>(size(each.batch, 4), -3, each.width);
        boxes[0] = boxes[1] = std::numeric_limits<std::int32_t>::min();
        boxes[2] = boxes[3] = std::numeric_limits<std::int32_t>::max();
        for (const bool largest : {true, false}) {
            const auto of = [&](const auto& run) {
                Values<std::int32_t> points(size(each.batch, point_stride), -77);
                TopkPoints arguments;
                arguments.batch = each.batch, arguments.height = each.height, arguments.width = each.width;
                arguments.values = values.data(), arguments.value_stride = stride;
                arguments.boxes = each.boxed ? boxes.data() : nullptr;
                arguments.k = each.k, arguments.largest = largest;
                arguments.points = points.data(), arguments.point_stride = point_stride;
                run(arguments);
                for (int map = 0; map < each.batch; ++map) {  // what lies between the maps' points is nobody's
                    for (int i = 2 * each.k; i < point_stride; ++i)
                        CHECK(points[size(map, point_stride) + size(i)] == -77);
                }
                Results results;
                results.add(points);
                return results;
            };
            check_all_the_same(of);
        }
    }
}

TEST_CASE("resize_logits is the same everywhere, whichever outputs are wanted") {
    for (const int taps : {1, 2, 3, 4, 5}) {
        for (const bool weighted : {true, false}) {
            for (const bool all_outputs : {true, false}) {
                CAPTURE(taps);
                CAPTURE(weighted);
                CAPTURE(all_outputs);
                const Element element = taps % 2 == 0 ? Element::float16 : Element::float32;
                const int batch = 3, masks = 3, side = 13, height = 9, width = 21, stride = masks * side * side + 4;
                const Values<float> low_res = noise(size(batch, stride));
                const Values<std::uint16_t> half = halves(low_res);
                const Values<float> weights = noise(size(batch, masks));
                Values<float> iou = noise(size(batch, masks + 2));
                iou[1] = std::numeric_limits<float>::quiet_NaN();
                const OwnTaps rows(side, height, taps), columns(side, width, taps);
                const auto of = [&](const auto& run) {
                    Values<float> settled(size(batch, side, side), -77), logits(size(batch, height, width), -77);
                    Values<std::uint8_t> mask(logits.size(), 0xab);
                    Values<std::int32_t> area(size(batch), -77), box(size(batch, 4), -77), chosen(size(batch), -77);
                    ResizeLogits arguments;
                    arguments.batch = batch, arguments.masks = masks, arguments.side = side;
                    arguments.element = element, arguments.low_res_stride = stride;
                    arguments.low_res =
                        element == Element::float16 ? static_cast<const void*>(half.data()) : low_res.data();
                    arguments.weights = weighted ? weights.data() : nullptr;
                    arguments.iou = weighted ? nullptr : iou.data();
                    arguments.iou_stride = masks + 2;
                    arguments.rows = rows.view(), arguments.columns = columns.view();
                    arguments.settled = all_outputs ? settled.data() : nullptr;
                    arguments.logits = all_outputs ? logits.data() : nullptr;
                    arguments.mask = mask.data(), arguments.area = area.data(), arguments.box = box.data();
                    arguments.chosen = chosen.data();
                    run(arguments);
                    for (int frame = 0; frame < batch; ++frame) {
                        const auto begin = mask.begin() + std::ptrdiff_t{frame} * height * width;
                        const auto set = std::count(begin, begin + std::ptrdiff_t{height} * width, std::uint8_t{1});
                        CHECK(area[size(frame)] == set);
                    }
                    Results results;
                    results.add(settled), results.add(logits);
                    results.add(mask), results.add(area), results.add(box), results.add(chosen);
                    return results;
                };
                check_all_the_same(of);
            }
        }
    }
}

TEST_CASE("prompt_assembly is the same everywhere") {
    const int batch = 5, points_per_frame = 4, count = 6, slots = 60;
    const Values<std::int32_t> points = whole<std::int32_t>(size(batch, points_per_frame, 2), -2000000000, 2000000000);
    Values<std::int32_t> order = whole<std::int32_t>(size(batch, count), -2, points_per_frame + 1);
    order[0] = std::numeric_limits<std::int32_t>::min(), order[1] = std::numeric_limits<std::int32_t>::max();
    const Values<std::int32_t> labels = whole<std::int32_t>(size(batch, count), 0, 1);
    const Values<std::int32_t> boxes = whole<std::int32_t>(size(batch, 4), 0, 500);
    for (const auto& [boxed, stride] :
         {std::pair(true, 2 * points_per_frame), {false, 2 * points_per_frame}, {true, 0}}) {
        const auto of = [&, boxed = boxed, stride = stride](const auto& run) {
            Values<float> coords(size(batch, slots, 2), -77), slot_labels(size(batch, slots), -77);
            PromptAssembly arguments;
            arguments.batch = batch, arguments.points_per_frame = points_per_frame, arguments.points = points.data();
            arguments.point_stride = stride;
            arguments.count = count, arguments.order = order.data(), arguments.labels = labels.data();
            arguments.boxes = boxed ? boxes.data() : nullptr;
            arguments.scale_x = 12.19f, arguments.scale_y = 0.37f;
            arguments.slots = slots, arguments.coords = coords.data(), arguments.slot_labels = slot_labels.data();
            run(arguments);
            Results results;
            results.add(coords), results.add(slot_labels);
            return results;
        };
        check_all_the_same(of, 0);
    }
}

TEST_CASE("apply_mask is the same everywhere, at any alignment") {
    for (const int width : {1, 5, 8}) {
        for (const std::size_t offset : {0, 1, 2}) {
            for (const int pictures : {0, 1, 3}) {  // 0: a colour
                CAPTURE(width);
                CAPTURE(offset);
                CAPTURE(pictures);
                const int batch = 3, height = 4;
                const std::size_t bytes = size(batch, height, width, 3);
                const Values<std::uint8_t> frames = whole<std::uint8_t>(bytes + offset, 0, 255);
                const Values<std::uint8_t> masks = whole<std::uint8_t>(size(batch, height, width), 0, 2);
                const Values<std::uint8_t> background = whole<std::uint8_t>(bytes + offset, 0, 255);
                const auto of = [&](const auto& run) {
                    Values<std::uint8_t> out(bytes + offset, 0xab);
                    ApplyMask arguments;
                    arguments.batch = batch, arguments.height = height, arguments.width = width;
                    arguments.frames = frames.data() + offset, arguments.masks = masks.data();
                    arguments.background = background.data() + offset;
                    arguments.background_is_picture = pictures > 0;
                    arguments.background_stride = pictures > 1 ? std::ptrdiff_t{height} * width * 3 : 0;
                    arguments.out = out.data() + offset;
                    run(arguments);
                    Results results;
                    results.add(out);
                    return results;
                };
                check_all_the_same(of);
            }
        }
    }
}

TEST_CASE("apply_mask writes over its own frames") {
    const int batch = 2, height = 3, width = 8;
    const Values<std::uint8_t> frames = whole<std::uint8_t>(size(batch, height, width, 3), 0, 255);
    const Values<std::uint8_t> masks = whole<std::uint8_t>(size(batch, height, width), 0, 1);
    const std::uint8_t colour[3] = {1, 2, 3};
    const auto of = [&](const auto& run) {
        Values<std::uint8_t> out = frames;
        ApplyMask arguments;
        arguments.batch = batch, arguments.height = height, arguments.width = width;
        arguments.frames = out.data(), arguments.masks = masks.data(), arguments.background = colour;
        arguments.out = out.data();
        run(arguments);  // several times, which in place is the same as once
        Results results;
        results.add(out);
        return results;
    };
    check_all_the_same(of);
}

namespace {

/// Every operation that knows half precision, as a way to convert: a 1 x 1 or identity resize of one mask.
Values<float> to_floats(const std::function<void(const ResizeLogits&)>& run, const Values<std::uint16_t>& bits) {
    const int side = 256;
    Values<std::int32_t> source(size(side));
    for (int i = 0; i < side; ++i) source[size(i)] = i;
    const Values<float> ones(size(side), 1), iou(1, 0);
    const Taps identity{side, 1, source.data(), ones.data()};
    Values<float> settled(size(side, side));
    Values<std::uint8_t> mask(size(side, side));
    std::int32_t area, box[4], chosen;
    ResizeLogits arguments;
    arguments.batch = 1, arguments.masks = 1, arguments.side = side, arguments.element = Element::float16;
    arguments.low_res = bits.data(), arguments.iou = iou.data();
    arguments.rows = arguments.columns = identity;
    arguments.settled = settled.data();
    arguments.mask = mask.data(), arguments.area = &area, arguments.box = box, arguments.chosen = &chosen;
    run(arguments);
    return settled;
}

/// Two rows, so that the values of the first byte come out as halves: up to 256 of them at a time, in each channel.
Values<std::uint16_t> to_halves(const std::function<void(const Preprocess&)>& run, const Values<float>& values) {
    const int side = 256;
    Values<std::uint8_t> frame(size(side, side, 3));
    for (int y = 0; y < side; ++y) {
        for (int x = 0; x < side; ++x) {
            for (int c = 0; c < 3; ++c) frame[size(y, side, 3) + size(x, 3) + size(c)] = static_cast<std::uint8_t>(x);
        }
    }
    Values<std::int32_t> source(size(side));
    for (int i = 0; i < side; ++i) source[size(i)] = i;
    const Values<float> ones(size(side), 1);
    Values<std::uint16_t> all;
    for (std::size_t start = 0; start < values.size(); start += 3 * 256) {
        Values<float> levels(3 * 256, 0);
        for (std::size_t i = 0; i < levels.size() && start + i < values.size(); ++i) levels[i] = values[start + i];
        Values<std::uint16_t> out(size(3, side, side), 0xabab);
        Preprocess arguments{1, 1, side, frame.data(), 1, {}};
        arguments.inputs[0] = {side,
                               Resize::float32,
                               {1, 1, source.data(), ones.data()},
                               {side, 1, source.data(), ones.data()},
                               levels.data(),
                               Element::float16,
                               out.data()};
        run(arguments);
        for (int c = 0; c < 3; ++c)
            all.insert(all.end(), out.begin() + c * side * side, out.begin() + c * side * side + side);
    }
    all.resize(values.size());
    return all;
}

/// Calls test(resize_logits, preprocess) of each level and of the CUDA kernels.
template <class Test>
void with_each(Test test) {
    for (int i = 0; i < cpu::level_count(); ++i) {
        const cpu::Level& level = cpu::levels()[i];
        if (!level.runs_here()) continue;
        CAPTURE(level.name);
        test([&](const ResizeLogits& arguments) { run_cpu(level.kernels, arguments, 1); },
             [&](const Preprocess& arguments) { run_cpu(level.kernels, arguments, 1); });
    }
    INFO("the CUDA kernels");
    test([](const ResizeLogits& arguments) { run_cuda(arguments); },
         [](const Preprocess& arguments) { run_cuda(arguments); });
}

}  // namespace

TEST_CASE("all halves are read as what they are") {
    Values<std::uint16_t> bits(65536);
    for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
    with_each([&](const auto& resize_logits, const auto&) {
        const Values<float> got = to_floats(resize_logits, bits);
        int wrong = 0;
        for (std::size_t i = 0; i < bits.size(); ++i) {
            const float wanted = half_value(bits[i]);
            wrong += !(std::isnan(wanted) ? std::isnan(got[i]) : got[i] == wanted);
        }
        CHECK(wrong == 0);
    });
}

TEST_CASE("floats become the nearest half, ties the even one") {
    Values<float> values = {0.0f, -0.0f, 65519.99f, 65520.0f, 1e30f, 2.98e-8f, 2.9802322e-8f, 2.99e-8f, 1e-45f};
    for (std::uint32_t bits = 0; bits < 0x7c00; bits += 31) {  // every exponent, all over the mantissa
        const float low = half_value(static_cast<std::uint16_t>(bits));
        const float high = bits + 1 == 0x7c00 ? 65536 : half_value(static_cast<std::uint16_t>(bits + 1));
        const float tie = low + (high - low) / 2;
        for (const float value : {low, tie, std::nextafterf(tie, 0.0f), std::nextafterf(tie, 1e9f)}) {
            values.push_back(value), values.push_back(-value);
        }
    }
    values.push_back(std::numeric_limits<float>::infinity());
    values.push_back(-std::numeric_limits<float>::infinity());
    const Values<std::uint16_t> wanted = halves(values);
    with_each([&](const auto&, const auto& preprocess) {
        const Values<std::uint16_t> got = to_halves(preprocess, values);
        int wrong = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const bool is_zero = (wanted[i] & 0x7fff) == 0;  // sums from 0 may lose the sign of a zero
            wrong += is_zero ? (got[i] & 0x7fff) != 0 : got[i] != wanted[i];
        }
        CHECK(wrong == 0);
    });
}

TEST_CASE("a NaN stays one as a half") {
    const Values<float> values(16, std::numeric_limits<float>::quiet_NaN());
    with_each([&](const auto&, const auto& preprocess) {
        for (const std::uint16_t bits : to_halves(preprocess, values)) CHECK((bits & 0x7fff) > 0x7c00);
    });
}

TEST_CASE("what has no weight does not count, even if it is infinite") {
    const int side = 3;
    const float infinite = std::numeric_limits<float>::infinity();
    const Values<float> low_res = {1, 2, 3, 4, 5, 6, infinite, infinite, infinite}, iou = {0};
    const std::int32_t row_source[] = {0, 1, 1, 2}, column_source[] = {0, 1, 2};
    const float row_weight[] = {0.5f, 1, 0.5f, 0}, ones[] = {1, 1, 1};
    with_each([&](const auto& resize_logits, const auto&) {
        Values<float> logits(6, -77);
        Values<std::uint8_t> mask(6);
        std::int32_t area, box[4], chosen;
        ResizeLogits arguments;
        arguments.batch = 1, arguments.masks = 1, arguments.side = side;
        arguments.low_res = low_res.data(), arguments.iou = iou.data();
        arguments.rows = {2, 2, row_source, row_weight};
        arguments.columns = {3, 1, column_source, ones};
        arguments.logits = logits.data();
        arguments.mask = mask.data(), arguments.area = &area, arguments.box = box, arguments.chosen = &chosen;
        resize_logits(arguments);
        CHECK(logits == Values<float>{2.5f, 3.5f, 4.5f, 4, 5, 6});
    });
}

TEST_CASE("a batch of none is nothing to do") {
    for (int i = 0; i < cpu::level_count(); ++i) {
        if (!cpu::levels()[i].runs_here()) continue;
        const cpu::Kernels& kernels = cpu::levels()[i].kernels;
        run_cpu(kernels, PromptAssembly{}, 2);
        run_cpu(kernels, ApplyMask{}, 2);
        run_cpu(kernels, TopkPoints{}, 2);
    }
    run_cuda(PromptAssembly{});
    run_cuda(ApplyMask{});
    run_cuda(TopkPoints{});
}

TEST_CASE("levels: the last one runs anywhere, and one is used by its name") {
    const std::string before = cpu::level().name;
    REQUIRE(cpu::level_count() >= 1);
    CHECK(std::string(cpu::levels()[cpu::level_count() - 1].name) == "baseline");
    CHECK(cpu::levels()[cpu::level_count() - 1].runs_here());
    CHECK(cpu::use_level("baseline"));
    CHECK(std::string(cpu::level().name) == "baseline");
    CHECK_FALSE(cpu::use_level("abacus"));
    CHECK(std::string(cpu::level().name) == "baseline");
    CHECK(cpu::use_level(before.c_str()));
}
