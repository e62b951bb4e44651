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

    /// Anomaly maps B×H×W of a batch B×C×H×W; they stay valid until the next run.
    const float* run(std::vector<float>& images) {
        const std::int64_t shape[] = {header_.batch, header_.channels, header_.height, header_.width};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto input =
            Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape, 4);
        const char *inputs[] = {"image"}, *outputs[] = {"anomaly_map"};
        maps_ = std::move(session_.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1).front());
        if (maps_.GetTensorTypeAndShapeInfo().GetElementCount() != header_.batch * header_.pixels())
            throw draem::Error("its maps are not of its input's size");
        return maps_.GetTensorData<float>();
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
    Ort::Value maps_{nullptr};
    draem::Header header_;
};

int main(int argc, char** argv) { return draem::inspect<Network>(argc, argv); }
