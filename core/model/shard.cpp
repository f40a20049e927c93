#include "core/model/shard.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

/// Part `rank` of `count` things in `size` parts, larger ones first.
Range part(int64_t count, int rank, int size) {
  const int64_t each = count / size, more = count % size;
  const int64_t begin = rank * each + std::min<int64_t>(rank, more);
  return {begin, begin + each + (rank < more)};
}

}  // namespace

Shard shard_of(const ModelConfig& m, int rank, int size) {
  if (m.kv_heads < size)
    throw InputError(str(m.file, ": ", m.kv_heads, m.kv_heads == 1 ? " key/value head" : " key/value heads",
                         ", so at most ", m.kv_heads, m.kv_heads == 1 ? " rank" : " ranks",
                         " can share this model, not ", size));
  Shard s{rank, size, {}, part(m.kv_heads, rank, size), {}};
  const int64_t group = m.q_heads / m.kv_heads;
  s.q_heads = {s.kv_heads.begin * group, s.kv_heads.end * group};
  // larger parts last: the first ranks may have more heads
  const int64_t unit = m.intermediate >= 64 * size ? 64 : 1, units = (m.intermediate + unit - 1) / unit;
  const Range mirrored = part(units, size - 1 - rank, size);
  s.mlp = {std::min((units - mirrored.end) * unit, m.intermediate),
           std::min((units - mirrored.begin) * unit, m.intermediate)};
  return s;
}

}  // namespace prefill
