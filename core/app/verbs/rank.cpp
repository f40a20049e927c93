// rank: one of the processes that share a model. The program starts it by itself (--tensor-parallel).
#include "core/app/verb.h"
#include "core/run/ranks.h"

namespace prefill {
namespace {

const RegisterVerb rank_verb(
    {.name = "rank",
     .doc = "One rank of a shared model; started by --tensor-parallel, not by hand",
     .file = __FILE__,
     .order = 90,
     .setup = [](CLI::App& app) -> std::function<int()> {
       auto fd = std::make_shared<int>(), parent = std::make_shared<int>();
       app.add_option("--socket", *fd, "number of the open socket to rank 0")->required();
       app.add_option("--parent", *parent, "process id of rank 0")->required();
       return [=] { return serve_rank(*fd, *parent); };
     }});

}  // namespace
}  // namespace prefill
