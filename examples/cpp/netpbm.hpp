// Reads binary PGM (P5), PPM (P6) and PAM (P7, any number of channels), of 8 or 16 bits: formats that any tool writes.

#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string>
#include <vector>

#include "modelfile.hpp"

namespace draem {

/// Samples row by row, the channels of a pixel side by side, red first; `depth` is 8 or 16 bits.
struct Image {
    int height = 0, width = 0, channels = 0, depth = 8;
    std::vector<std::uint16_t> samples;

    Image() = default;
    Image(int height_, int width_, int channels_, int depth_)
        : height(height_), width(width_), channels(channels_), depth(depth_),
          samples(static_cast<std::size_t>(height_) * width_ * channels_) {}

    /// The samples of one row.
    std::uint16_t* row(int y) { return samples.data() + static_cast<std::size_t>(y) * width * channels; }
    const std::uint16_t* row(int y) const { return samples.data() + static_cast<std::size_t>(y) * width * channels; }
};

class Netpbm {
public:
    /// Throws Error where the file is no such image, or cut short.
    static Image read(const std::string& path) { return Netpbm(read_file(path)).image(); }

private:
    static constexpr int largest = 20000;  // pixels a side; also keeps the number of samples far from overflow

    explicit Netpbm(std::string content) : content_(std::move(content)) {}

    Image image() {
        const std::string kind = word();
        int width = 0, height = 0, channels = 0, most = 0;
        if (kind == "P5" || kind == "P6") {
            channels = kind == "P5" ? 1 : 3;
            width = number(largest), height = number(largest), most = number(65535);
            ++place_;  // one space, then the samples
        } else if (kind == "P7") {
            for (std::string key = word(); key != "ENDHDR"; key = word()) {
                if (key == "WIDTH") width = number(largest);
                else if (key == "HEIGHT") height = number(largest);
                else if (key == "DEPTH") channels = number(64);
                else if (key == "MAXVAL") most = number(65535);
                else if (key != "TUPLTYPE" || word().find("ALPHA") != std::string::npos)
                    throw Error("a PAM image with " + key + " that is not understood");
            }
            ++place_;
            if (width == 0 || height == 0 || channels == 0 || most == 0) throw Error("its header lacks a number");
        } else {
            throw Error("not a binary PGM, PPM or PAM image");
        }
        const std::size_t bytes = most > 255 ? 2 : 1;
        if (place_ > content_.size() || (content_.size() - place_) / bytes / width / height < std::size_t(channels))
            throw Error("the image is cut short");
        Image image(height, width, channels, most > 255 ? 16 : 8);
        const auto* data = reinterpret_cast<const unsigned char*>(content_.data()) + place_;
        for (std::uint16_t& sample : image.samples) {  // the higher byte comes first
            sample = bytes == 1 ? data[0] : static_cast<std::uint16_t>(data[0] << 8 | data[1]);
            data += bytes;
        }
        return image;
    }

    int number(int most) {
        const std::string digits = word();
        if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos)
            throw Error("its header is damaged");
        const int found = std::stoi(digits);
        if (found < 1 || found > most)
            throw Error("its header says " + digits + ", from 1 to " + std::to_string(most) + " is read");
        return found;
    }

    /// The next word of the header; comments are passed over.
    std::string word() {
        const auto space = [this] { return std::isspace(static_cast<unsigned char>(content_[place_])) != 0; };
        while (place_ < content_.size() && (space() || content_[place_] == '#'))
            if (content_[place_] == '#') place_ = std::min(content_.find('\n', place_), content_.size());
            else ++place_;
        std::string found;
        while (place_ < content_.size() && !space() && found.size() < 32) found += content_[place_++];
        if (found.empty()) throw Error("the image is cut short");
        return found;
    }

    std::string content_;
    std::size_t place_ = 0;
};

}  // namespace draem
