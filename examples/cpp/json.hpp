// A small strict JSON reader: enough for the header of a draem model, without a dependency.

#pragma once

#include <cstdint>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace draem {

/// What a person can put right: a file that is not what it should be. what() is one line.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A JSON value; of an object, keys[i] names items[i].
struct Json {
    enum class Kind { null, boolean, number, text, array, object };

    Kind kind = Kind::null;
    double value = 0.0;  ///< of a number; 0 or 1 of a boolean
    std::string string;
    std::vector<std::string> keys;
    std::vector<Json> items;

    bool is_null() const { return kind == Kind::null; }

    /// Member of an object; null where there is none.
    const Json& operator[](const std::string& key) const {
        static const Json none;
        for (std::size_t i = 0; i < keys.size(); ++i)
            if (keys[i] == key) return items[i];
        return none;
    }

    double number() const { return expect(Kind::number, "a number").value; }
    int integer() const {
        const double found = number();
        if (found < -2147483648.0 || found > 2147483647.0 || found != static_cast<int>(found))
            throw Error("a whole number is expected");
        return static_cast<int>(found);
    }
    const std::string& text() const { return expect(Kind::text, "a text").string; }
    const std::vector<Json>& array() const { return expect(Kind::array, "an array").items; }
    const Json& item(std::size_t index) const {
        if (index >= array().size()) throw Error("an array is too short");
        return items[index];
    }

private:
    const Json& expect(Kind wanted, const char* name) const {
        if (kind != wanted) throw Error(std::string(name) + " is expected");
        return *this;
    }
};

/// Reads one JSON value, which is the whole text.
class JsonReader {
public:
    static Json read(const std::string& text) {
        JsonReader reader(text);
        Json found = reader.value(0);
        reader.skip_spaces();
        if (reader.place_ != text.size()) reader.fail();
        return found;
    }

private:
    static constexpr int deepest = 100;

    explicit JsonReader(const std::string& text) : text_(text) {}

    Json value(int depth) {
        if (depth > deepest) fail();
        skip_spaces();
        Json found;
        switch (peek()) {
            case '{': return object(depth);
            case '[': return array(depth);
            case '"':
                found.kind = Json::Kind::text;
                found.string = string();
                return found;
            case 't': return word("true", Json::Kind::boolean, 1.0);
            case 'f': return word("false", Json::Kind::boolean, 0.0);
            case 'n': return word("null", Json::Kind::null, 0.0);
            default: return number();
        }
    }

    Json object(int depth) {
        Json found;
        found.kind = Json::Kind::object;
        take('{');
        if (!closes('}')) do {
            skip_spaces();
            found.keys.push_back(string());
            skip_spaces();
            take(':');
            found.items.push_back(value(depth + 1));
        } while (goes_on('}'));
        return found;
    }

    Json array(int depth) {
        Json found;
        found.kind = Json::Kind::array;
        take('[');
        if (!closes(']')) do {
            found.items.push_back(value(depth + 1));
        } while (goes_on(']'));
        return found;
    }

    Json word(const std::string& name, Json::Kind kind, double value) {
        if (text_.compare(place_, name.size(), name) != 0) fail();
        place_ += name.size();
        Json found;
        found.kind = kind;
        found.value = value;
        return found;
    }

    Json number() {
        const std::size_t start = place_;
        if (peek() == '-') ++place_;
        if (peek() == '0') ++place_;
        else digits();
        if (peek() == '.') ++place_, digits();
        if (peek() == 'e' || peek() == 'E') {
            ++place_;
            if (peek() == '+' || peek() == '-') ++place_;
            digits();
        }
        // Not strtod: in a program that speaks German it would read 0.5 as 0.
        std::istringstream stream(text_.substr(start, place_ - start));
        stream.imbue(std::locale::classic());
        Json found;
        found.kind = Json::Kind::number;
        if (!(stream >> found.value)) fail();
        return found;
    }

    void digits() {
        if (peek() < '0' || peek() > '9') fail();
        while (peek() >= '0' && peek() <= '9') ++place_;
    }

    std::string string() {
        std::string found;
        take('"');
        while (peek() != '"') {
            if (static_cast<unsigned char>(peek()) < 0x20) fail();
            if (peek() != '\\') found += text_[place_++];
            else found += escaped();
        }
        ++place_;
        return found;
    }

    std::string escaped() {
        static const std::string names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        ++place_;
        if (peek() == 'u') return utf8(code_point());
        const std::size_t which = names.find(peek());
        if (which == std::string::npos) fail();
        ++place_;
        return {meanings[which]};
    }

    std::uint32_t code_point() {
        const std::uint32_t first = code_unit();
        if (first < 0xD800 || first > 0xDFFF) return first;
        if (first > 0xDBFF || text_.compare(place_, 2, "\\u") != 0) fail();
        ++place_;
        const std::uint32_t second = code_unit();
        if (second < 0xDC00 || second > 0xDFFF) fail();
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }

    std::uint32_t code_unit() {
        std::uint32_t found = 0;
        take('u');
        for (int i = 0; i < 4; ++i, ++place_) {
            const std::size_t digit = std::string("0123456789abcdef").find(static_cast<char>(peek() | 0x20));
            if (digit == std::string::npos) fail();
            found = found << 4 | static_cast<std::uint32_t>(digit);
        }
        return found;
    }

    static std::string utf8(std::uint32_t code) {
        const auto tail = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3F)); };
        if (code < 0x80) return {static_cast<char>(code)};
        if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), tail(0)};
        if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
        return {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
    }

    bool closes(char end) {
        skip_spaces();
        if (peek() != end) return false;
        ++place_;
        return true;
    }

    bool goes_on(char end) {
        if (closes(end)) return false;
        take(',');
        return true;
    }

    void take(char wanted) {
        if (peek() != wanted) fail();
        ++place_;
    }

    void skip_spaces() {
        while (place_ < text_.size() && std::string(" \t\n\r").find(text_[place_]) != std::string::npos) ++place_;
    }

    /// The next character; 0 at the end, which fits nowhere.
    char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }

    [[noreturn]] void fail() const { throw Error("not JSON at byte " + std::to_string(place_)); }

    const std::string& text_;
    std::size_t place_ = 0;
};

/// A text as JSON writes it, with its quotes.
inline std::string json_text(const std::string& text) {
    std::string written = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') written += '\\', written += c;
        else if (byte < 0x20)
            written += std::string("\\u00") + "01"[byte >> 4] + "0123456789abcdef"[byte & 15];
        else written += c;
    }
    return written + '"';
}

}  // namespace draem
