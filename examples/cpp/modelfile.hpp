// The header of a draem model file (ONNX, OpenVINO IR), and the two checksums that guard header and weights.

#pragma once

#include <array>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "json.hpp"
#include "sha256.hpp"

namespace draem {

/// Corners (x, y), as fractions of the image's width and height.
using Polygon = std::vector<std::pair<double, double>>;

/// What inspection needs to know of a model; docs/deploy.md says where each value stands in the JSON.
struct Header {
    int channels = 3;                                      ///< of the network: 1 grey, 3 RGB, else a stack
    int height = 256, width = 256;                         ///< of its input
    int depth = 8;                                         ///< bits of one channel that are kept: 8 or 16
    std::optional<std::pair<double, double>> value_range;  ///< raw values that become black and white
    bool letterbox = false;                                ///< else the aspect ratio is ignored
    bool area = true;                                      ///< shrinks by averaging; else linearly
    bool joint = false;                                    ///< score where image and reconstruction differ, too
    int filter_size = 21;                                  ///< side of the mean filter; odd
    std::optional<double> reject, review;                  ///< scores above are rejected; go to review
    std::vector<Polygon> inspect, ignore;                  ///< the region of interest
    bool blank = false;                                    ///< the network sees mid-grey outside of it
    int batch = 1;                                         ///< images in one run
    bool int8 = false;                                     ///< see int8_is_exact
    std::string sha256;                                    ///< of the weights

    int highest() const { return (1 << depth) - 1; }
    std::array<std::size_t, 4> shape() const {
        const auto size = [](int side) { return static_cast<std::size_t>(side); };
        return {size(batch), size(channels), size(height), size(width)};
    }
    std::size_t pixels() const { return static_cast<std::size_t>(height) * width; }
    std::size_t values() const { return pixels() * channels; }
};

inline std::vector<Polygon> read_polygons(const Json& polygons) {
    std::vector<Polygon> found;
    if (polygons.is_null()) return found;
    for (const Json& polygon : polygons.array()) {
        found.emplace_back();
        for (const Json& corner : polygon.array())
            found.back().emplace_back(corner.item(0).number(), corner.item(1).number());
    }
    return found;
}

/// The header in the model's metadata; `sum` is what stands beside it. Throws Error.
inline Header read_header(const std::string& text, const std::string& sum) {
    const Json json = JsonReader::read(text);
    if (json["kind"].is_null() || json["kind"].text() != "draem-model") throw Error("not a draem model");
    const int version = json["format_version"].integer();
    if (version < 1 || version > 4)
        throw Error("header version " + std::to_string(version) + ", this program reads 1 to 4");
    if (sha256(text) != sum) throw Error("its header does not match its checksum; copy the file again");

    const Json &data = json["config"]["data"], &score = json["config"]["score"];
    const std::string &fit = data["fit"].text(), &map = score["map"].text();
    if (fit != "resize" && fit != "letterbox") throw Error("this program does not do data.fit=" + fit);
    if (!json["registration"].is_null()) throw Error("this program does not do registration");
    if (map != "segmentation" && map != "joint") throw Error("this program does not do score.map=" + map);

    Header header;
    header.channels = json["channels"].integer();
    header.height = data["size"].item(0).integer();
    header.width = data["size"].item(1).integer();
    header.depth = data["depth"].kind == Json::Kind::number ? data["depth"].integer() : 8;
    if (const Json& range = data["value_range"]; !range.is_null())
        header.value_range = {range.item(0).number(), range.item(1).number()};
    header.letterbox = fit == "letterbox";
    header.area = data["interpolation"].text() == "area";
    header.joint = map == "joint";
    header.filter_size = score["filter_size"].integer();
    if (const Json& thresholds = json["thresholds"]; !thresholds.is_null()) {
        header.reject = thresholds["reject"].number();
        if (!thresholds["review"].is_null()) header.review = thresholds["review"].number();
    }
    header.inspect = read_polygons(json["region"]["inspect"]);
    header.ignore = read_polygons(json["region"]["ignore"]);
    if (const Json& outside = data["outside"]; !outside.is_null())
        header.blank = outside.text() == "blank" && !(header.inspect.empty() && header.ignore.empty());
    if (const Json& batch = json["artefact"]["batch"]; !batch.is_null()) header.batch = batch.integer();
    if (const Json& stored = json["artefact"]["precision"]; !stored.is_null()) header.int8 = stored.text() == "int8";
    header.sha256 = json["sha256"].text();
    const bool sound = header.channels >= 1 && header.channels <= 64 && header.height >= 1 && header.height <= 8192 &&
                       header.width >= 1 && header.width <= 8192 && (header.depth == 8 || header.depth == 16) &&
                       header.filter_size % 2 == 1 && header.filter_size > 0 && header.batch >= 1;
    if (!sound) throw Error("its header holds values that cannot be");
    return header;
}

inline std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error("no such file, or it cannot be read");
    std::string content{std::istreambuf_iterator<char>(file), {}};
    if (file.bad()) throw Error("cannot be read");
    return content;
}

/// The outermost fields of an ONNX file (one protobuf message), walked to take the sum of all but our metadata.
class OnnxFile {
public:
    static std::string weights_sum(const std::string& content) {
        Sha256 digest;
        OnnxFile file(content, 0, content.size());
        while (file.place_ < file.end_) {
            const std::size_t start = file.place_;
            const auto [number, payload] = file.next();
            if (number == metadata && file.is_ours(payload)) continue;
            digest.update(content.data() + start, file.place_ - start);
        }
        return digest.hex();
    }

private:
    static constexpr std::uint64_t metadata = 14, bytes = 2;

    OnnxFile(const std::string& content, std::size_t start, std::size_t end)
        : content_(content), place_(start), end_(end) {}

    /// Number of the next field and where its payload starts; place_ is then behind it.
    std::pair<std::uint64_t, std::size_t> next() {
        const std::uint64_t tag = varint();
        std::uint64_t size = 0;
        if ((tag & 7) == bytes) size = varint();
        else if ((tag & 7) == 5) size = 4;
        else if ((tag & 7) == 1) size = 8;
        const std::size_t payload = place_;
        if ((tag & 7) == 0) varint();
        if (size > end_ - place_) throw Error("not an ONNX model (or cut short)");
        place_ += size;
        return {tag >> 3, payload};
    }

    /// Whether the metadata entry that ends here has one of our keys.
    bool is_ours(std::size_t start) const {
        OnnxFile entry(content_, start, place_);
        while (entry.place_ < entry.end_) {
            const auto [number, payload] = entry.next();
            const std::string value = number == 1 ? content_.substr(payload, entry.place_ - payload) : "";
            if (value == "draem" || value == "sha256") return true;
        }
        return false;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64 && place_ < end_; shift += 7) {
            const auto byte = static_cast<unsigned char>(content_[place_++]);
            value |= std::uint64_t{byte & 0x7Fu} << shift;
            if (byte < 0x80) return value;
        }
        throw Error("not an ONNX model (or cut short)");
    }

    const std::string& content_;
    std::size_t place_, end_;
};

/// The sum of an OpenVINO IR: of the .xml without our entry and the space before it, then of the .bin.
inline std::string ir_weights_sum(std::string xml, const std::string& weights) {
    const std::size_t entry = xml.find("<draem>"), end = xml.find("</draem>");
    if (entry == std::string::npos || end == std::string::npos || end < entry) throw Error("not a draem model");
    const std::size_t before = xml.find_last_not_of(" \t\n\r\f\v", entry - 1) + 1;
    xml.erase(before, end + std::string("</draem>").size() - before);
    return sha256(xml + weights);
}

inline bool ends_in(const std::string& path, const std::string& suffix) {
    return path.size() > suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
}

/// Throws Error where a path names no file that ends in .onnx or .xml: a runtime would guess what else it may be.
inline void expect_model(const std::string& path) {
    if (!ends_in(path, ".onnx") && !ends_in(path, ".xml")) throw Error("a model ends in .onnx or .xml");
    if (std::ifstream file(path, std::ios::binary); !file || file.peek() == std::ifstream::traits_type::eof())
        throw Error("no such file, or it cannot be read");
}

/// Throws Error where the weights in a model file are not those that its header was written for.
inline void check_weights(const std::string& path, const Header& header) {
    const bool ir = ends_in(path, ".xml");
    const std::string content = read_file(path);
    const std::string sum = ir ? ir_weights_sum(content, read_file(path.substr(0, path.size() - 4) + ".bin"))
                               : OnnxFile::weights_sum(content);
    if (sum != header.sha256) throw Error("the weights do not match their checksum; copy the model again");
}

}  // namespace draem
