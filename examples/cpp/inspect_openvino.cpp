// Inspects images with a draem model in OpenVINO: an .xml with its .bin beside it, or an .onnx file.
//
//   inspect_openvino MODEL IMAGE.ppm...     one JSON line for each image: path, score, verdict
//
// How it is compiled is told in docs/deploy.md.

#include <string>
#include <vector>

#include <openvino/openvino.hpp>

#include "draem.hpp"

class Network {
public:
    explicit Network(const std::string& path) {
        draem::expect_model(path);
        ov::Core core;
        const std::shared_ptr<ov::Model> model = core.read_model(path);
        // The metadata of an ONNX file come under "framework"; an IR has ours under "draem".
        const std::string section = model->has_rt_info("draem", "header") ? "draem" : "framework";
        const std::string key = section == "draem" ? "header" : "draem";
        if (!model->has_rt_info(section, key) || !model->has_rt_info(section, "sha256"))
            throw draem::Error("not a draem model (no header); draem export writes one");
        header_ = draem::read_header(model->get_rt_info<std::string>(section, key),
                                     model->get_rt_info<std::string>(section, "sha256"));
        draem::check_weights(path, header_);
        if (!model->input("image").get_partial_shape().compatible(shape()))
            throw draem::Error("its input is not of the size that its header says");
        // Without the hint, processors that can take bf16: other answers than those the thresholds were chosen on.
        ov::AnyMap options{ov::hint::inference_precision(ov::element::f32),
                           ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
        if (header_.int8 && !draem::int8_is_exact()) options["LP_TRANSFORMS_MODE"] = "NO";
        request_ = core.compile_model(model, "CPU", options).create_infer_request();
    }

    const draem::Header& header() const { return header_; }

    /// What it says of a batch B×C×H×W; valid until the next run.
    draem::Answer run(std::vector<float>& images) {
        request_.set_tensor("image", ov::Tensor(ov::element::f32, shape(), images.data()));
        request_.infer();
        const ov::Tensor maps = request_.get_tensor("anomaly_map"), restored = request_.get_tensor("reconstruction");
        if (maps.get_size() != header_.batch * header_.pixels() || restored.get_size() != images.size())
            throw draem::Error("its maps are not of its input's size");
        return {maps.data<const float>(), restored.data<const float>()};
    }

private:
    ov::Shape shape() const {
        const auto [batch, channels, height, width] = header_.shape();
        return {batch, channels, height, width};
    }

    draem::Header header_;
    ov::InferRequest request_;
};

int main(int argc, char** argv) { return draem::inspect<Network>(argc, argv); }
