// Inspection with an exported draem model, whatever runs the network: everything but the runtime itself.
//
//   header         modelfile.hpp   what the model file says, and whether it is whole
//   preprocessing  preprocess.hpp  raw samples → B×C×H×W float32 in [0, 1]
//   scoring        here            anomaly map → score → verdict
//
// The specification in words is docs/deploy.md. To use another decoder (OpenCV, stb_image, a camera), fill an Image
// with its samples, red first, in place of Netpbm::read.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "json.hpp"
#include "modelfile.hpp"
#include "netpbm.hpp"
#include "preprocess.hpp"

namespace draem {

/// Turns over the pixels whose centre lies in an odd number of polygons; corners are fractions of the fit.
inline void toggle_inside(const std::vector<Polygon>& polygons, const Fit& fit, int width, std::vector<char>& mask) {
    for (int y = 0; y < fit.height; ++y) {
        std::vector<char> crossed(fit.width + 1);  // edges to the left of a pixel's centre, odd or even
        for (const Polygon& polygon : polygons)
            for (std::size_t i = 0; i < polygon.size(); ++i) {
                auto [x1, y1] = polygon[i];
                auto [x2, y2] = polygon[(i + 1) % polygon.size()];
                x1 *= fit.width, x2 *= fit.width, y1 *= fit.height, y2 *= fit.height;
                const double middle = y + 0.5;
                if ((y1 <= middle) == (y2 <= middle)) continue;
                if (y1 > y2) std::swap(x1, x2), std::swap(y1, y2);
                const double x = x1 + (middle - y1) * ((x2 - x1) / (y2 - y1));
                const int first = static_cast<int>(std::ceil(std::min(std::max(x, 0.0), double(fit.width)) - 0.5));
                crossed[first] ^= 1;
            }
        char inside = 0;
        for (int x = 0; x < fit.width; ++x) {
            inside ^= crossed[x];
            mask[static_cast<std::size_t>(fit.top + y) * width + fit.left + x] ^= inside;
        }
    }
}

/// Which pixels of the map count: those of the image (a letterbox's padding is none) in its region of interest.
inline std::vector<char> inspected_pixels(const Fit& fit, const Header& header) {
    std::vector<char> kept(header.pixels()), ignored(header.pixels());
    for (int y = fit.top; y < fit.top + fit.height; ++y)
        for (int x = fit.left; x < fit.left + fit.width; ++x)
            kept[static_cast<std::size_t>(y) * header.width + x] = header.inspect.empty();
    toggle_inside(header.inspect, fit, header.width, kept);
    toggle_inside(header.ignore, fit, header.width, ignored);
    for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = kept[i] && !ignored[i];
    return kept;
}

/// Where nothing counts, the network sees mid-grey, if it was trained so. `input` is C×H×W in [0, 1].
inline void blank_outside(const Fit& fit, const Header& header, float* input) {
    if (!header.blank) return;
    const std::vector<char> kept = inspected_pixels(fit, header);
    const float middle = static_cast<float>((header.highest() + 1) / 2) / static_cast<float>(header.highest());
    for (std::size_t i = 0; i < header.values(); ++i)
        if (!kept[i % header.pixels()]) input[i] = middle;
}

/// Means over side × side pixels of a map (height × width), zeros beyond the border: by a table of the sums above and left
/// of each pixel.
inline std::vector<double> mean_filter(const std::vector<double>& map, int height, int width, int side) {
    std::vector<double> sums(static_cast<std::size_t>(height + 1) * (width + 1)), means(map.size());
    const auto at = [&](int y, int x) -> double& { return sums[static_cast<std::size_t>(y) * (width + 1) + x]; };
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            at(y + 1, x + 1) =
                map[static_cast<std::size_t>(y) * width + x] + at(y, x + 1) + at(y + 1, x) - at(y, x);
    const int reach = side / 2;
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            const int top = std::max(y - reach, 0), bottom = std::min(y + reach + 1, height);
            const int left = std::max(x - reach, 0), right = std::min(x + reach + 1, width);
            means[static_cast<std::size_t>(y) * width + x] =
                (at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)) / (double(side) * side);
        }
    return means;
}

/// The anomaly map where image and reconstruction (C×H×W) differ, too, if the model says so; in place.
inline void join_residual(const float* image, const float* reconstruction, const Header& header, float* anomaly_map) {
    if (!header.joint) return;
    std::vector<double> difference(header.pixels());
    for (std::size_t i = 0; i < header.values(); ++i)
        difference[i % header.pixels()] += std::abs(double(image[i]) - reconstruction[i]) / header.channels;
    const std::vector<double> residual = mean_filter(difference, header.height, header.width, 5);
    for (std::size_t i = 0; i < header.pixels(); ++i) {
        const double joint = std::pow(double(anomaly_map[i]), 0.8) * std::pow(std::max(residual[i], 0.0) + 0.001, 0.2);
        anomaly_map[i] = static_cast<float>(std::min(joint, 1.0));
    }
}

/// The maximum of the anomaly map (height × width) under a mean filter, zeros beyond the border. Throws Error.
inline float image_score(const float* anomaly_map, const Fit& fit, const Header& header) {
    const std::vector<char> kept = inspected_pixels(fit, header);
    std::vector<double> counted(header.pixels());
    for (std::size_t i = 0; i < counted.size(); ++i) {
        // Not a number is above no threshold: every part would be accepted.
        if (!std::isfinite(anomaly_map[i]))
            throw Error("the network's anomaly map holds values that are not numbers: its weights are spoilt");
        counted[i] = kept[i] ? anomaly_map[i] : 0.0;
    }
    const std::vector<double> means = mean_filter(counted, header.height, header.width, header.filter_size);
    return static_cast<float>(std::max(0.0, *std::max_element(means.begin(), means.end())));
}

/// Whether this processor is known to add up products of 8 bits without overflow. Where it is not, int8 files are to be
/// computed in floating point: x86 without VNNI would give nonsense without a word.
inline bool int8_is_exact() {
#if defined(__aarch64__) || defined(_M_ARM64)
    return true;
#elif defined(__GNUC__) && defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni") || __builtin_cpu_supports("avxvnni");
#else
    return false;
#endif
}

/// accept, review or reject; nothing where the model has no threshold. Compared in double precision.
inline const char* verdict(double score, const Header& header) {
    if (!header.reject) return nullptr;
    if (score > *header.reject) return "reject";
    return header.review && score > *header.review ? "review" : "accept";
}

/// One line of ASCII for people, whatever a runtime or a damaged file brought into it.
inline std::string one_line(const std::string& text) {
    std::string line;
    for (const char c : text.substr(0, 300))
        if (static_cast<unsigned char>(c) > ' ') line += c < 0x7F && c > 0 ? c : '?';
        else if (!line.empty() && line.back() != ' ') line += ' ';
    return line;
}

/// What a network says of a batch: anomaly maps B×H×W, and reconstructions B×C×H×W.
struct Answer {
    const float *maps, *reconstructions;
};

/// Inspects the images given on the command line and writes a JSON line for each; returns the exit code.
///
/// A Network is made from a path and has header(); run(images) gives the Answer to a batch B×C×H×W, with B images as
/// header().batch says.
template <class Network>
int inspect(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s MODEL IMAGE.ppm...\n", argv[0]);
        return 2;
    }
    std::string path = argv[1];  // what is at work, for errors
    try {
        Network network(path);
        const Header& header = network.header();
        std::vector<float> images(header.batch * header.values());
        for (int first = 2; first < argc; first += header.batch) {
            // A fixed batch is filled up with what lies in it from before, which is not looked at.
            const int count = std::min(header.batch, argc - first);
            std::vector<Fit> fits;
            for (int i = 0; i < count; ++i) {
                path = argv[first + i];
                fits.push_back(preprocess(Netpbm::read(path), header, &images[i * header.values()]));
                blank_outside(fits.back(), header, &images[i * header.values()]);
            }
            const Answer answer = network.run(images);
            for (int i = 0; i < count; ++i) {
                path = argv[first + i];
                std::vector<float> map(answer.maps + i * header.pixels(), answer.maps + (i + 1) * header.pixels());
                join_residual(&images[i * header.values()], answer.reconstructions + i * header.values(), header,
                              map.data());
                const float score = image_score(map.data(), fits[i], header);
                const char* found = verdict(score, header);
                std::printf("{\"path\": %s, \"score\": %.9g, \"verdict\": %s}\n", json_text(path).c_str(), score,
                            found ? json_text(found).c_str() : "null");
            }
        }
        return 0;
    } catch (const std::exception& error) {
        std::fflush(stdout);
        std::fprintf(stderr, "%s: %s\n", path.c_str(), one_line(error.what()).c_str());
        return 1;
    }
}

}  // namespace draem
