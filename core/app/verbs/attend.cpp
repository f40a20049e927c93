// attend: executes anybody's plan file on captured tensors.
#include <ATen/ATen.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/app/verb.h"
#include "core/base/text.h"
#include "core/plan_file.h"
#include "core/qkv_file.h"
#include "core/run/session.h"

namespace prefill {
namespace {

struct AttendVerbOptions {
  std::string qkv, plan, out, backend = "auto";
  int layer = -1;
  bool json = false;
};

int run_attend(const AttendVerbOptions& o) {
  const QkvFile file(o.qkv);
  const int layer = file.pick(o.layer);
  const auto backend = open_backend(o.backend);
  const Qkv qkv = file.layer(layer, backend->device());
  AttentionPlan plan = read_plan_file(o.plan, qkv.q_heads(), qkv.seq_len());
  for (at::Tensor* t : {&plan.tiles.tile_ptr, &plan.tiles.tile_idx, &plan.tiles.col_ptr, &plan.tiles.col_idx})
    if (t->defined()) *t = t->to(backend->device());
  if (const Support can = backend->supports(qkv, plan); !can)
    throw Unsupported(str(backend->name(), ": ", can.why));
  AttendOptions options;
  options.lse = true;
  const AttendResult result = backend->attend(qkv, plan, options);
  write_safetensors(o.out, {{"out", result.out.to(at::kFloat)}, {"lse", result.lse}},
                    {{"backend", backend->name()},
                     {"kernel", backend->kernel_name(qkv, plan)},
                     {"layer", std::to_string(layer)}});
  const auto shares = density(plan, qkv.seq_len());
  const double mean = std::accumulate(shares.begin(), shares.end(), 0.0) / double(shares.size());
  if (o.json)
    std::cout << nlohmann::ordered_json{{"layer", layer},
                                        {"tokens", qkv.seq_len()},
                                        {"density", mean},
                                        {"kernel", backend->kernel_name(qkv, plan)},
                                        {"out", o.out}}
                     .dump()
              << "\n";
  else
    std::cout << "layer " << layer << ", " << qkv.seq_len() << " tokens, density " << mean << ", kernel "
              << backend->kernel_name(qkv, plan) << "\nout and lse written to " << o.out << "\n";
  return exit_ok;
}

const RegisterVerb registered(
    {.name = "attend",
     .doc = "execute a plan file on captured Q, K, V and write the attention output",
     .file = __FILE__,
     .order = 63,
     .setup = [](CLI::App& app) -> std::function<int()> {
       const auto o = std::make_shared<AttendVerbOptions>();
       app.add_option("--qkv", o->qkv,
                      "safetensors with layer.N.q [Hq,S,D], layer.N.k and layer.N.v [Hkv,S,D] (see capture)")
           ->required();
       app.add_option("--plan", o->plan,
                      "plan file: tile_ptr, tile_idx, optionally col_ptr, col_idx; metadata block_q, "
                      "block_k, col_group")
           ->required();
       app.add_option("--out", o->out, "safetensors to write: out [Hq,S,D] float32, lse [Hq,S] float32")
           ->required();
       app.add_option("--layer", o->layer, "layer of the tensors; default: the file's only one");
       app.add_option("--backend", o->backend,
                      "backend that executes the plan; see 'prefillbench list backends'")
           ->capture_default_str();
       app.add_flag("--json", o->json, "print JSON");
       return [o] { return run_attend(*o); };
     }});

}  // namespace
}  // namespace prefill
