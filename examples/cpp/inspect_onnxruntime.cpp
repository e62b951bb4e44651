// Inspects images with a draem model in ONNX Runtime: an .onnx file.
//
//   inspect_onnxruntime MODEL.onnx IMAGE.ppm...     one JSON line for each image: path, score, verdict
//
// How it is compiled is told in docs/deploy.md.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "draem.hpp"

class Network {
public:
    explicit Network(const std::string& path) {
        draem::expect_model(path);
        Ort::SessionOptions options;
        if (!draem::int8_is_exact()) options.AddConfigEntry("session.disable_quant_qdq", "1");  // int8 files in floats
        // A path of the system's own characters: ONNX Runtime takes wide ones on Windows.
        session_ = Ort::Session(environment_, std::filesystem::path(path).c_str(), options);
        header_ = draem::read_header(metadata("draem"), metadata("sha256"));
        draem::check_weights(path, header_);
    }

    const draem::Header& header() const { return header_; }

    /// What it says of a batch B×C×H×W; valid until the next run.
    draem::Answer run(std::vector<float>& images) {
        const std::int64_t shape[] = {header_.batch, header_.channels, header_.height, header_.width};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto input =
            Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape, 4);
        const char *inputs[] = {"image"}, *outputs[] = {"anomaly_map", "reconstruction"};
        found_ = session_.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 2);
        const auto count = [&](int output) { return found_[output].GetTensorTypeAndShapeInfo().GetElementCount(); };
        if (count(0) != header_.batch * header_.pixels() || count(1) != images.size())
            throw draem::Error("its maps are not of its input's size");
        return {found_[0].GetTensorData<float>(), found_[1].GetTensorData<float>()};
    }

private:
    std::string metadata(const char* key) const {
        Ort::AllocatorWithDefaultOptions allocator;
        const auto found = session_.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
        if (!found) throw draem::Error("not a draem model (no header); draem export writes one");
        return found.get();
    }

    Ort::Env environment_{ORT_LOGGING_LEVEL_FATAL, "draem"};
    Ort::Session session_{nullptr};
    std::vector<Ort::Value> found_;
    draem::Header header_;
};

int main(int argc, char** argv) { return draem::inspect<Network>(argc, argv); }
