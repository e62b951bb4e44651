// From an image file's raw samples to what the network takes, as draem does it with OpenCV: to the last bit, or to one
// level where processors round differently.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "modelfile.hpp"
#include "netpbm.hpp"

namespace draem {

/// Where an image lies within the network's input: all of it, or the middle of a letterbox.
struct Fit {
    int top = 0, left = 0, height = 0, width = 0;
};

/// std::nearbyint rounds halves to even, as Python and OpenCV do.
inline Fit plan_fit(int height, int width, const Header& header) {
    if (!header.letterbox) return {0, 0, header.height, header.width};
    const double scale = std::min(double(header.height) / height, double(header.width) / width);
    const auto scaled = [scale](int side, int room) {
        return std::min(std::max(static_cast<int>(std::nearbyint(side * scale)), 1), room);
    };
    const int h = scaled(height, header.height), w = scaled(width, header.width);
    return {(header.height - h) / 2, (header.width - w) / 2, h, w};
}

inline std::uint16_t rounded(double value, int highest) {
    return static_cast<std::uint16_t>(std::nearbyint(std::min(std::max(value, 0.0), double(highest))));
}

/// Raw samples in the depth and the range of values of the model, and with its number of channels.
inline Image convert(Image image, const Header& header) {
    const auto [low, high] = header.value_range.value_or(std::pair(0.0, image.depth == 8 ? 255.0 : 65535.0));
    if (header.value_range || image.depth != header.depth) {
        std::vector<std::uint16_t> table(std::size_t{1} << image.depth);
        for (std::size_t raw = 0; raw < table.size(); ++raw) {
            const double unit = std::min(std::max((double(raw) - low) / (high - low), 0.0), 1.0);
            table[raw] = rounded(unit * header.highest(), header.highest());
        }
        for (std::uint16_t& sample : image.samples) sample = table[sample];
        image.depth = header.depth;
    }
    if (image.channels == header.channels) return image;
    Image wanted(image.height, image.width, header.channels, image.depth);
    if (image.channels == 1 && header.channels == 3) {
        for (std::size_t i = 0; i < wanted.samples.size(); ++i) wanted.samples[i] = image.samples[i / 3];
    } else if (image.channels == 3 && header.channels == 1) {
        for (std::size_t i = 0; i < wanted.samples.size(); ++i) {
            const std::uint16_t* rgb = &image.samples[3 * i];
            wanted.samples[i] = rounded(0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2], header.highest());
        }
    } else {
        throw Error(std::to_string(image.channels) + " channels, " + std::to_string(header.channels) + " expected");
    }
    return wanted;
}

/// Which samples a scaled one is made of along one axis, and their weights.
struct Share {
    int from;
    float weight;
};

/// Area averaging along one axis: each new sample covers `scale` old ones, those at its ends in part.
inline std::vector<std::vector<Share>> area_shares(int from, int to) {
    const double scale = double(from) / to;
    std::vector<std::vector<Share>> shares(to);
    for (int i = 0; i < to; ++i) {
        const double start = i * scale, stop = start + scale, cell = std::min(scale, from - start);
        const int last = std::min(static_cast<int>(std::floor(stop)), from - 1);
        const int first = std::min(static_cast<int>(std::ceil(start)), last);
        if (first - start > 1e-3) shares[i].push_back({first - 1, static_cast<float>((first - start) / cell)});
        for (int k = first; k < last; ++k) shares[i].push_back({k, static_cast<float>(1.0 / cell)});
        if (stop - last > 1e-3)
            shares[i].push_back({last, static_cast<float>(std::min(std::min(stop - last, 1.0), cell) / cell)});
    }
    return shares;
}

/// cv2.INTER_AREA where no side grows.
inline Image shrink(const Image& image, int height, int width) {
    Image found(height, width, image.channels, image.depth);
    const int n = image.channels, highest = (1 << image.depth) - 1;
    if (image.height % height == 0 && image.width % width == 0) {  // whole blocks: exact sums
        const int down = image.height / height, across = image.width / width;
        const float share = 1.0f / static_cast<float>(down * across);
        for (int y = 0; y < height; ++y)
            for (int i = 0; i < width * n; ++i) {
                std::uint64_t sum = 0;
                for (int dy = 0; dy < down; ++dy)
                    for (int dx = 0; dx < across; ++dx)
                        sum += image.row(y * down + dy)[(i / n * across + dx) * n + i % n];
                const bool of_four = down == 2 && across == 2;  // OpenCV rounds halves up here
                found.row(y)[i] = of_four ? static_cast<std::uint16_t>((sum + 2) >> 2)
                                          : rounded(static_cast<float>(sum) * share, highest);
            }
        return found;
    }
    const auto columns = area_shares(image.width, width), rows = area_shares(image.height, height);
    std::vector<float> line(static_cast<std::size_t>(width) * n), sums(line.size());
    for (int y = 0; y < height; ++y) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (const Share& row : rows[y]) {
            const std::uint16_t* source = image.row(row.from);
            for (int x = 0; x < width; ++x)
                for (int c = 0; c < n; ++c) {
                    float sum = 0.0f;
                    for (const Share& column : columns[x]) sum += source[column.from * n + c] * column.weight;
                    line[x * n + c] = sum;
                }
            for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += line[i] * row.weight;
        }
        for (std::size_t i = 0; i < sums.size(); ++i) found.row(y)[i] = rounded(sums[i], highest);
    }
    return found;
}

/// The two neighbours between which a new sample lies along one axis, and how near it is to the second.
struct Between {
    int first, second;
    float toward;
};

inline std::vector<Between> between(int from, int to, bool across) {
    const double scale = 1.0 / (double(to) / from);
    std::vector<Between> found(to);
    for (int i = 0; i < to; ++i) {
        const float place = static_cast<float>((i + 0.5) * scale - 0.5);
        const int below = static_cast<int>(std::floor(place));
        const auto inside = [from](int k) { return std::min(std::max(k, 0), from - 1); };
        // Beyond the border both are the last sample; OpenCV then drops the fraction across, but not down.
        const bool beyond = below < 0 || below >= from - 1;
        found[i] = {inside(below), inside(below + 1), across && beyond ? 0.0f : place - static_cast<float>(below)};
        if (across && beyond) found[i].second = found[i].first;
    }
    return found;
}

/// cv2.INTER_LINEAR: 8 bits in whole numbers (weights of 11 bits), 16 bits in float32.
inline Image linear(const Image& image, int height, int width) {
    // OpenCV takes half of 8 bits by area; the mean of four is the same, but for how halves are rounded.
    if (image.depth == 8 && image.height == 2 * height && image.width == 2 * width) return shrink(image, height, width);
    Image found(height, width, image.channels, image.depth);
    const int n = image.channels;
    const auto columns = between(image.width, width, true), rows = between(image.height, height, false);
    const auto whole = [](float weight) { return static_cast<int>(std::nearbyint(weight * 2048.0f)); };
    for (int y = 0; y < height; ++y) {
        const auto [up, down, v] = rows[y];
        for (int x = 0; x < width; ++x) {
            const auto [left, right, u] = columns[x];
            for (int c = 0; c < n; ++c) {
                const std::uint16_t *above = image.row(up) + c, *under = image.row(down) + c;
                const int a = above[left * n], b = above[right * n], p = under[left * n], q = under[right * n];
                std::uint16_t& result = found.row(y)[x * n + c];
                if (image.depth == 8) {
                    const int first = a * whole(1.0f - u) + b * whole(u), second = p * whole(1.0f - u) + q * whole(u);
                    result = static_cast<std::uint16_t>(
                        ((whole(1.0f - v) * (first >> 4) >> 16) + (whole(v) * (second >> 4) >> 16) + 2) >> 2);
                } else {
                    const float first = a * (1.0f - u) + b * u, second = p * (1.0f - u) + q * u;
                    result = rounded(first * (1.0f - v) + second * v, 65535);
                }
            }
        }
    }
    return found;
}

/// First what shrinks, by area; then what grows, linearly. Rounded to whole levels after each step.
inline Image scaled(Image image, int height, int width, bool area) {
    if (area) {
        const int h = std::min(height, image.height), w = std::min(width, image.width);
        if (h != image.height || w != image.width) image = shrink(image, h, w);
    }
    return height == image.height && width == image.width ? image : linear(image, height, width);
}

/// Writes one image of the batch, C×H×W in [0, 1], to `input`; returns where the image lies in it. Throws Error.
inline Fit preprocess(const Image& raw, const Header& header, float* input) {
    const Fit fit = plan_fit(raw.height, raw.width, header);
    const Image image = scaled(convert(raw, header), fit.height, fit.width, header.area);
    const auto highest = static_cast<float>(header.highest());
    for (int c = 0; c < header.channels; ++c)
        for (int y = 0; y < header.height; ++y) {
            // A letterbox is padded with the nearest pixel of the image.
            const std::uint16_t* row = image.row(std::min(std::max(y - fit.top, 0), fit.height - 1));
            for (int x = 0; x < header.width; ++x) {
                const int column = std::min(std::max(x - fit.left, 0), fit.width - 1);
                *input++ = row[column * header.channels + c] / highest;
            }
        }
    return fit;
}

}  // namespace draem
