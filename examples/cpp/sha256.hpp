// SHA-256 (FIPS 180-4), for the checksums of a model file.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace draem {

class Sha256 {
public:
    void update(const char* data, std::size_t size) {
        length_ += size;
        while (size > 0) {
            const std::size_t taken = size < block_.size() - filled_ ? size : block_.size() - filled_;
            std::memcpy(block_.data() + filled_, data, taken);
            filled_ += taken, data += taken, size -= taken;
            if (filled_ == block_.size()) mix(), filled_ = 0;
        }
    }

    /// The digest of all that was given, in 64 hexadecimal digits; ends the work.
    std::string hex() {
        const std::uint64_t bits = length_ * 8;
        const char one = '\x80', zero = '\0';
        update(&one, 1);
        while (filled_ != 56) update(&zero, 1);
        for (int shift = 56; shift >= 0; shift -= 8) {
            const char byte = static_cast<char>(bits >> shift);
            update(&byte, 1);
        }
        std::string written;
        for (const std::uint32_t word : state_)
            for (int shift = 28; shift >= 0; shift -= 4) written += "0123456789abcdef"[word >> shift & 15];
        return written;
    }

private:
    static std::uint32_t turn(std::uint32_t x, int n) { return x >> n | x << (32 - n); }

    void mix() {
        static constexpr std::uint32_t k[64] = {
            0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
            0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
            0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
            0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
            0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
            0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
            0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
            0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
        std::uint32_t w[64];
        for (int i = 0; i < 16; ++i)
            w[i] = std::uint32_t{block_[4 * i]} << 24 | std::uint32_t{block_[4 * i + 1]} << 16 |
                   std::uint32_t{block_[4 * i + 2]} << 8 | block_[4 * i + 3];
        for (int i = 16; i < 64; ++i)
            w[i] = w[i - 16] + w[i - 7] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
        auto [a, b, c, d, e, f, g, h] = state_;
        for (int i = 0; i < 64; ++i) {
            const std::uint32_t chosen = (e & f) ^ (~e & g), most = (a & b) ^ (a & c) ^ (b & c);
            const std::uint32_t first = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + chosen + k[i] + w[i];
            const std::uint32_t second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + most;
            h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
        }
        const std::uint32_t mixed[8] = {a, b, c, d, e, f, g, h};
        for (int i = 0; i < 8; ++i) state_[i] += mixed[i];
    }

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> block_{};
    std::size_t filled_ = 0;
    std::uint64_t length_ = 0;
};

inline std::string sha256(const std::string& text) {
    Sha256 digest;
    digest.update(text.data(), text.size());
    return digest.hex();
}

}  // namespace draem
