// The operations as Python functions, the same for every device. Types check each array; what they cannot express is
// checked here, so that no call reads or writes outside its arrays. Readable errors are the job of `samg_fast.ops`.
//
// The last two arguments of each function are a workspace and where to run: threads on a CPU, a stream on a GPU. It
// returns the bytes of workspace that it needs, and does nothing else if the given one is smaller.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "samg/apply_mask.h"
#include "samg/preprocess.h"
#include "samg/prompt_assembly.h"
#include "samg/resize_logits.h"
#include "samg/similarity_map.h"
#include "samg/topk_points.h"

namespace samg::bindings {

namespace nb = nanobind;
using namespace nb::literals;

inline void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

/// The arrays of a device. Whatever is contiguous or read-only says so in its type.
template <class Place>
struct Arrays {
    template <class Scalar, std::size_t dimensions>
    using In = nb::ndarray<const Scalar, nb::ndim<dimensions>, nb::c_contig, Place>;
    template <class Scalar, std::size_t dimensions>
    using Out = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, Place>;
    template <std::size_t dimensions>
    using InReal = nb::ndarray<nb::ro, nb::ndim<dimensions>, nb::c_contig, Place>;  // float32 or float16
    template <std::size_t dimensions>
    using OutReal = nb::ndarray<nb::ndim<dimensions>, nb::c_contig, Place>;
    /// Contiguous from the second axis on; the first may have any stride.
    template <class Scalar, std::size_t dimensions>
    using Rows = nb::ndarray<Scalar, nb::ndim<dimensions>, Place>;
    template <std::size_t dimensions>
    using RealRows = nb::ndarray<nb::ro, nb::ndim<dimensions>, Place>;

    using TapsPair = std::pair<In<std::int32_t, 2>, In<float, 2>>;  // source and weight, (count, length) each
    using Workspace = Out<std::uint8_t, 1>;
};

template <class Array>
Element element_of(const Array& array, const char* what) {
    if (array.dtype() == nb::dtype<float>()) return Element::float32;
    require(array.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) &&
                array.dtype().bits == 16 && array.dtype().lanes == 1,
            what);
    return Element::float16;
}

/// Checks that all but the first axis are contiguous, and returns the first one's stride in elements.
template <class Array>
std::ptrdiff_t row_stride(const Array& array, const char* what) {
    std::int64_t dense = 1;
    for (std::size_t axis = array.ndim(); axis-- > 1;) {
        require(array.shape(axis) <= 1 || array.stride(axis) == dense, what);
        dense *= static_cast<std::int64_t>(array.shape(axis));
    }
    require(array.shape(0) <= 1 || array.stride(0) >= 0, what);
    return array.shape(0) <= 1 ? static_cast<std::ptrdiff_t>(dense) : array.stride(0);
}

template <class Array>
int length(const Array& array, std::size_t axis) {
    require(array.shape(axis) <= 0x7fffffff, "an axis is longer than 2^31 - 1");
    return static_cast<int>(array.shape(axis));
}

template <class Pair>
Taps taps_of(const Pair& pair) {
    const auto& [source, weight] = pair;
    require(source.shape(0) == weight.shape(0) && source.shape(1) == weight.shape(1) && source.shape(0) > 0,
            "taps: source and weight must have one shape (count, length)");
    return {length(source, 1), length(source, 0), source.data(), weight.data()};
}

/// Runs an operation where Device says, if the workspace is large enough, without the GIL.
template <class Device, class Arguments, class Workspace>
std::size_t run(void (*operation)(const Arguments&, void*, typename Device::Launch), const Arguments& arguments,
                const Workspace& workspace, typename Device::Launch launch) {
    const std::size_t bytes = Device::workspace(arguments, launch);
    if (bytes > workspace.shape(0)) return bytes;
    const nb::gil_scoped_release released;
    operation(arguments, workspace.data(), launch);
    return bytes;
}

template <class Device>
void define_preprocess(nb::module_& module) {
    using A = Arrays<typename Device::Place>;
    using Taps = typename A::TapsPair;
    using Input = std::tuple<bool, Taps, Taps, typename A::template In<float, 2>, typename A::template OutReal<4>>;
    module.def(
        "preprocess",
        [](typename A::template In<std::uint8_t, 4> frames, const std::vector<Input>& inputs,
           typename A::Workspace workspace, std::uintptr_t launch) {
            require(frames.shape(3) == 3 && frames.size() > 0, "frames must be (batch, height, width, 3)");
            require(!inputs.empty() && inputs.size() <= 2, "inputs must be one or two");
            Preprocess arguments;
            arguments.batch = length(frames, 0);
            arguments.height = length(frames, 1);
            arguments.width = length(frames, 2);
            arguments.frames = frames.data();
            for (const auto& [fixed, rows, columns, levels, out] : inputs) {
                NetworkInput& input = arguments.inputs[arguments.count++];
                input.resize = fixed ? Resize::uint8 : Resize::float32;
                input.rows = taps_of(rows);
                input.columns = taps_of(columns);
                require(levels.shape(0) == 3 && levels.shape(1) == 256, "levels must be (3, 256)");
                input.levels = levels.data();
                input.side = length(out, 3);
                require(out.shape(0) == frames.shape(0) && out.shape(1) == 3 && out.shape(2) == out.shape(3) &&
                            input.rows.length <= input.side && input.columns.length <= input.side,
                        "out must be (batch, 3, side, side), and the taps not longer than side");
                input.element = element_of(out, "out must be float32 or float16");
                input.out = out.data();
            }
            return run<Device>(Device::preprocess, arguments, workspace, Device::launch(launch));
        },
        "frames"_a.noconvert(), "inputs"_a.noconvert(), "workspace"_a.noconvert(), "launch"_a);
}

template <class Map, class Features>
FeatureMap feature_map(const Map& cells, const Features& features) {
    require(cells.shape(2) == cells.shape(3) && cells.size() > 0, "a map must be (batch, channels, grid, grid)");
    require(features.shape(2) == cells.shape(1), "features must be (batch or 1, count, channels) of the map");
    require(features.shape(0) == 1 || features.shape(0) == cells.shape(0), "features must be of one frame or of all");
    FeatureMap map;
    map.channels = length(cells, 1);
    map.grid = length(cells, 2);
    map.element = element_of(cells, "a map must be float32 or float16");
    map.cells = cells.data();
    map.features = features.data();
    map.stride = features.shape(0) == 1 ? 0 : static_cast<std::ptrdiff_t>(features.shape(1) * features.shape(2));
    return map;
}

template <class Device>
void define_similarity_map(nb::module_& module) {
    using A = Arrays<typename Device::Place>;
    using Map = typename A::template InReal<4>;
    using Features = typename A::template In<float, 3>;
    using Taps = typename A::TapsPair;
    module.def(
        "similarity_map",
        [](Features sam_features, Features dino_features, Map sam_map, Map dino_map, const Taps& lift, const Taps& rows,
           const Taps& columns, typename A::template Out<float, 4> out, typename A::Workspace workspace,
           std::uintptr_t launch) {
            SimilarityMap arguments;
            arguments.sam = feature_map(sam_map, sam_features);
            arguments.dino = feature_map(dino_map, dino_features);
            arguments.lift = taps_of(lift);
            arguments.rows = taps_of(rows);
            arguments.columns = taps_of(columns);
            arguments.batch = length(sam_map, 0);
            arguments.count = length(sam_features, 1);
            require(arguments.count >= 1 && arguments.count <= 64, "there must be 1 to 64 features");
            require(sam_map.shape(0) == dino_map.shape(0) && sam_features.shape(1) == dino_features.shape(1),
                    "both maps must have one batch, and as many features");
            require(arguments.lift.length == arguments.sam.grid && arguments.lift.count <= 2,
                    "lift must bring dino's grid to sam's");
            require(out.shape(0) == sam_map.shape(0) && length(out, 1) == arguments.count &&
                        length(out, 2) == arguments.rows.length && length(out, 3) == arguments.columns.length,
                    "out must be (batch, count, height, width)");
            arguments.out = out.data();
            return run<Device>(Device::similarity_map, arguments, workspace, Device::launch(launch));
        },
        "sam_features"_a.noconvert(), "dino_features"_a.noconvert(), "sam_map"_a.noconvert(), "dino_map"_a.noconvert(),
        "lift"_a.noconvert(), "rows"_a.noconvert(), "columns"_a.noconvert(), "out"_a.noconvert(),
        "workspace"_a.noconvert(), "launch"_a);
}

template <class Device>
void define_topk_points(nb::module_& module) {
    using A = Arrays<typename Device::Place>;
    module.def(
        "topk_points",
        [](typename A::template Rows<const float, 3> values, int k, bool largest,
           const std::optional<typename A::template In<std::int32_t, 2>>& boxes,
           typename A::template Rows<std::int32_t, 3> out, typename A::Workspace workspace, std::uintptr_t launch) {
            TopkPoints arguments;
            arguments.value_stride = row_stride(values, "values: all but the first axis must be contiguous");
            arguments.point_stride = row_stride(out, "out: all but the first axis must be contiguous");
            require(values.size() > 0, "values must have a pixel");
            arguments.batch = length(values, 0);
            arguments.height = length(values, 1);
            arguments.width = length(values, 2);
            require(static_cast<long long>(arguments.height) * arguments.width <= 2048 * 2048,
                    "a map must not have more than 2048 x 2048 values");
            require(k >= 1 && k <= most_points, "k must be from 1 to 64");
            require(out.shape(0) == values.shape(0) && length(out, 1) == k && out.shape(2) == 2,
                    "out must be (batch, k, 2)");
            require(arguments.batch == 1 || arguments.point_stride >= 2 * k, "out must not overlap itself");
            if (boxes) {
                require(boxes->shape(0) == values.shape(0) && boxes->shape(1) == 4, "boxes must be (batch, 4)");
                arguments.boxes = boxes->data();
            }
            arguments.values = values.data();
            arguments.k = k;
            arguments.largest = largest;
            arguments.points = out.data();
            return run<Device>(Device::topk_points, arguments, workspace, Device::launch(launch));
        },
        "values"_a.noconvert(), "k"_a, "largest"_a, "boxes"_a.none().noconvert(), "out"_a.noconvert(),
        "workspace"_a.noconvert(), "launch"_a);
}

template <class Device>
void define_resize_logits(nb::module_& module) {
    using A = Arrays<typename Device::Place>;
    using Taps = typename A::TapsPair;
    using Maps = std::optional<typename A::template Out<float, 3>>;
    module.def(
        "resize_logits",
        [](typename A::template RealRows<4> low_res, const std::optional<typename A::template In<float, 2>>& weights,
           const std::optional<typename A::template Rows<const float, 2>>& iou, const Taps& rows, const Taps& columns,
           const Maps& settled, const Maps& logits, typename A::template Out<bool, 3> mask,
           typename A::template Out<std::int32_t, 1> area, typename A::template Out<std::int32_t, 2> box,
           typename A::template Out<std::int32_t, 1> chosen, typename A::Workspace workspace, std::uintptr_t launch) {
            ResizeLogits arguments;
            const std::size_t batch = low_res.shape(0);
            arguments.low_res_stride = row_stride(low_res, "low_res: all but the first axis must be contiguous");
            require(low_res.size() > 0 && low_res.shape(2) == low_res.shape(3),
                    "low_res must be (batch, masks, side, side)");
            arguments.batch = length(low_res, 0);
            arguments.masks = length(low_res, 1);
            arguments.side = length(low_res, 2);
            arguments.element = element_of(low_res, "low_res must be float32 or float16");
            arguments.low_res = low_res.data();
            require(weights.has_value() != iou.has_value(), "either weights or iou must be given");
            if (weights) {
                require(weights->shape(0) == batch && weights->shape(1) == low_res.shape(1),
                        "weights must be (batch, masks)");
                arguments.weights = weights->data();
            } else {
                require(iou->shape(0) == batch && iou->shape(1) == low_res.shape(1), "iou must be (batch, masks)");
                arguments.iou = iou->data();
                arguments.iou_stride = row_stride(*iou, "iou: all but the first axis must be contiguous");
            }
            arguments.rows = taps_of(rows);
            arguments.columns = taps_of(columns);
            const auto check_maps = [&](const Maps& maps, int height, int width, const char* what) -> float* {
                if (!maps) return nullptr;
                require(maps->shape(0) == batch && length(*maps, 1) == height && length(*maps, 2) == width, what);
                return maps->data();
            };
            const int height = arguments.rows.length, width = arguments.columns.length;
            arguments.settled =
                check_maps(settled, arguments.side, arguments.side, "settled must be (batch, side, side)");
            arguments.logits = check_maps(logits, height, width, "logits must be (batch, height, width)");
            require(mask.shape(0) == batch && length(mask, 1) == height && length(mask, 2) == width,
                    "mask must be (batch, height, width)");
            require(area.shape(0) == batch && chosen.shape(0) == batch && box.shape(0) == batch && box.shape(1) == 4,
                    "area and chosen must be (batch,), box (batch, 4)");
            arguments.mask = reinterpret_cast<std::uint8_t*>(mask.data());
            arguments.area = area.data();
            arguments.box = box.data();
            arguments.chosen = chosen.data();
            return run<Device>(Device::resize_logits, arguments, workspace, Device::launch(launch));
        },
        "low_res"_a.noconvert(), "weights"_a.none().noconvert(), "iou"_a.none().noconvert(), "rows"_a.noconvert(),
        "columns"_a.noconvert(), "settled"_a.none().noconvert(), "logits"_a.none().noconvert(), "mask"_a.noconvert(),
        "area"_a.noconvert(), "box"_a.noconvert(), "chosen"_a.noconvert(), "workspace"_a.noconvert(), "launch"_a);
}

template <class Device>
void define_prompt_assembly(nb::module_& module) {
    using A = Arrays<typename Device::Place>;
    module.def(
        "prompt_assembly",
        [](typename A::template In<std::int32_t, 3> points, typename A::template In<std::int32_t, 2> order,
           typename A::template In<std::int32_t, 2> labels,
           const std::optional<typename A::template In<std::int32_t, 2>>& boxes, std::pair<float, float> scale,
           typename A::template Out<float, 3> coords, typename A::template Out<float, 2> slot_labels,
           typename A::Workspace workspace, std::uintptr_t launch) {
            PromptAssembly arguments;
            const std::size_t batch = order.shape(0);
            arguments.batch = length(order, 0);
            arguments.points_per_frame = length(points, 1);
            require(points.shape(2) == 2 && (points.shape(0) == 1 || points.shape(0) == batch),
                    "points must be (batch or 1, n, 2)");
            arguments.points = points.data();
            arguments.point_stride = points.shape(0) == 1 ? 0 : static_cast<std::ptrdiff_t>(points.shape(1)) * 2;
            arguments.count = length(order, 1);
            require(labels.shape(0) == batch && labels.shape(1) == order.shape(1),
                    "order and labels must be (batch, count)");
            arguments.order = order.data();
            arguments.labels = labels.data();
            if (boxes) {
                require(boxes->shape(0) == batch && boxes->shape(1) == 4, "boxes must be (batch, 4)");
                arguments.boxes = boxes->data();
            }
            std::tie(arguments.scale_x, arguments.scale_y) = scale;
            arguments.slots = length(coords, 1);
            require(arguments.slots - arguments.count >= (boxes ? 2 : 1),
                    "there must be a slot for each point, and two "
                    "for a box or one without");
            require(coords.shape(0) == batch && coords.shape(2) == 2 && slot_labels.shape(0) == batch &&
                        slot_labels.shape(1) == coords.shape(1),
                    "coords must be (batch, slots, 2), slot_labels (batch, slots)");
            arguments.coords = coords.data();
            arguments.slot_labels = slot_labels.data();
            return run<Device>(Device::prompt_assembly, arguments, workspace, Device::launch(launch));
        },
        "points"_a.noconvert(), "order"_a.noconvert(), "labels"_a.noconvert(), "boxes"_a.none().noconvert(), "scale"_a,
        "coords"_a.noconvert(), "slot_labels"_a.noconvert(), "workspace"_a.noconvert(), "launch"_a);
}

template <class Device>
void define_apply_mask(nb::module_& module) {
    using A = Arrays<typename Device::Place>;
    using Pictures = typename A::template In<std::uint8_t, 4>;
    module.def(
        "apply_mask",
        [](Pictures frames, typename A::template In<bool, 3> masks, Pictures background,
           typename A::template Out<std::uint8_t, 4> out, typename A::Workspace workspace, std::uintptr_t launch) {
            ApplyMask arguments;
            arguments.batch = length(frames, 0);
            arguments.height = length(frames, 1);
            arguments.width = length(frames, 2);
            require(frames.shape(3) == 3, "frames must be (batch, height, width, 3)");
            for (std::size_t axis = 0; axis < 4; ++axis) {
                require(out.shape(axis) == frames.shape(axis), "out must have the frames' shape");
                require(axis == 3 || masks.shape(axis) == frames.shape(axis), "masks must be (batch, height, width)");
            }
            arguments.frames = frames.data();
            arguments.masks = reinterpret_cast<const std::uint8_t*>(masks.data());
            arguments.background = background.data();
            arguments.background_is_picture = background.size() != 3;
            require(background.shape(3) == 3, "background must be (1, 1, 1, 3), (1, H, W, 3) or (batch, H, W, 3)");
            if (arguments.background_is_picture) {
                require(background.shape(1) == frames.shape(1) && background.shape(2) == frames.shape(2) &&
                            (background.shape(0) == 1 || background.shape(0) == frames.shape(0)),
                        "background must be (1, 1, 1, 3), (1, H, W, 3) or (batch, H, W, 3)");
                if (background.shape(0) > 1) {
                    arguments.background_stride = static_cast<std::ptrdiff_t>(background.size() / background.shape(0));
                }
            }
            arguments.out = out.data();
            return run<Device>(Device::apply_mask, arguments, workspace, Device::launch(launch));
        },
        "frames"_a.noconvert(), "masks"_a.noconvert(), "background"_a.noconvert(), "out"_a.noconvert(),
        "workspace"_a.noconvert(), "launch"_a);
}

template <class Device>
void define_operations(nb::module_& module) {
    define_preprocess<Device>(module);
    define_similarity_map<Device>(module);
    define_topk_points<Device>(module);
    define_resize_logits<Device>(module);
    define_prompt_assembly<Device>(module);
    define_apply_mask<Device>(module);
}

}  // namespace samg::bindings
