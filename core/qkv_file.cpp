#include "core/qkv_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

/// N of "layer.N.q", or -1.
int layer_of(const std::string& name) {
  const std::string head = "layer.", tail = ".q";
  if (name.size() <= head.size() + tail.size() || name.rfind(head, 0) != 0 ||
      name.compare(name.size() - 2, 2, tail) != 0)
    return -1;
  int layer = -1;
  const char *from = name.data() + head.size(), *to = name.data() + name.size() - tail.size();
  const auto end = std::from_chars(from, to, layer);
  return end.ec == std::errc() && end.ptr == to && layer >= 0 ? layer : -1;
}

/// A number >= 0 of the metadata, 0 when it is not there.
double number_or_zero(const SafetensorsFile& file, const std::string& key) {
  const auto entry = file.metadata().find(key);
  if (entry == file.metadata().end()) return 0;
  const std::string& text = entry->second;
  double value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !std::isfinite(value) || value < 0)
    throw InputError(str(file.path(), ": metadata ", key, " = '", text, "' is no number of 0 or more"));
  return value;
}

}  // namespace

QkvFile::QkvFile(const std::string& path) : file_(SafetensorsFile::open(path)) {
  for (const auto& [name, entry] : file_.entries())
    if (const int layer = layer_of(name); layer >= 0) layers_.push_back(layer);
  std::sort(layers_.begin(), layers_.end());
  if (layers_.empty())
    throw InputError(str(path, ": no tensor is called layer.N.q (expected layer.N.q, .k and .v)"));
}

int QkvFile::pick(int asked) const {
  if (asked < 0 && layers_.size() == 1) return layers_.front();
  if (std::find(layers_.begin(), layers_.end(), asked) != layers_.end()) return asked;
  std::string have;
  for (int l : layers_) have += (have.empty() ? "" : ", ") + std::to_string(l);
  throw InputError(asked < 0 ? str(file_.path(), " has layers ", have, ": say which with --layer")
                             : str(file_.path(), " has no layer ", asked, " (it has ", have, ")"));
}

Qkv QkvFile::layer(int index, at::Device device) const {
  const std::string base = str("layer.", index, ".");
  Qkv a{file_.tensor(base + "q"), file_.tensor(base + "k"), file_.tensor(base + "v"), 0};
  auto refuse = [&](const char* name, const at::Tensor& t, const std::string& expected) {
    throw InputError(str(file_.path(), ": tensor ", base, name, " is ", at::toString(t.scalar_type()), " ",
                         shape_text(t.sizes().vec()), ", expected ", expected));
  };
  const auto type = a.q.scalar_type();
  if (a.q.dim() != 3 || a.q.numel() == 0 ||
      (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf))
    refuse("q", a.q, "float32, bfloat16 or float16 [heads, tokens, head_dim]");
  const std::string kv = str(at::toString(type), " [heads, ", a.q.size(1), ", ", a.q.size(2),
                             "] with a number of heads that divides ", a.q.size(0));
  auto fits = [&](const at::Tensor& t) {
    return t.dim() == 3 && t.scalar_type() == type && t.size(0) > 0 && a.q.size(0) % t.size(0) == 0 &&
           t.size(1) == a.q.size(1) && t.size(2) == a.q.size(2);
  };
  if (!fits(a.k)) refuse("k", a.k, kv);
  if (!fits(a.v) || a.v.size(0) != a.k.size(0))
    refuse("v", a.v, str("the shape of ", base, "k, ", shape_text(a.k.sizes().vec())));
  a.scale = 1 / std::sqrt(double(a.head_dim()));
  if (const double told = number_or_zero(file_, "scale"); told > 0) a.scale = told;
  return {a.q.to(device), a.k.to(device), a.v.to(device), a.scale};
}

ModelShape QkvFile::model(int index) const {
  const Qkv a = layer(index);
  const auto& meta = file_.metadata();
  ModelShape shape;
  if (const auto name = meta.find("model"); name != meta.end()) shape.id = name->second;
  if (const auto of = meta.find("model_fingerprint"); of != meta.end()) shape.fingerprint = of->second;
  shape.layers = int(std::min(number_or_zero(file_, "model_layers"), 1e6));
  shape.q_heads = a.q_heads();
  shape.kv_heads = a.kv_heads();
  shape.head_dim = a.head_dim();
  shape.rope_theta = number_or_zero(file_, "rope_theta");
  return shape;
}

}  // namespace prefill
