// MInference's offline head patterns: the published JSON format and this project's own artefact.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/method.h"

namespace prefill {

struct HeadPattern {
  enum Kind { vertical_slash, stream, block_sparse } kind = vertical_slash;
  int64_t first = 0;   ///< vertical_slash: columns; stream: sink keys; block_sparse: unused
  int64_t second = 0;  ///< vertical_slash: distances; stream: window
  double score = 1;    ///< of the search; no effect at run time
};

/// "vertical_and_slash", "stream_llm", "block_sparse": names of the published format.
const char* pattern_name(HeadPattern::Kind);

/// Reads a published file (a list with one object per layer, head index -> [pattern, size, size, score]) or
/// an artefact of `calibrate minference` whose content is such a list. Heads that the file leaves out get
/// `fallback`. -> [layers][q_heads]. Throws InputError naming file, layer and head; a file with another
/// number of layers, or a head that the model does not have, belongs to another model and is refused.
std::vector<std::vector<HeadPattern>> read_head_patterns(const std::string& path, const ModelShape& model,
                                                         const HeadPattern& fallback);

/// The list in the published format.
nlohmann::json write_head_patterns(const std::vector<std::vector<HeadPattern>>&);

}  // namespace prefill
