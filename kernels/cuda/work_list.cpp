#include "kernels/cuda/work_list.h"

#include <algorithm>
#include <cmath>

namespace prefill::kernels::cuda {
namespace {

bool power_of_two(int x) { return x > 0 && (x & (x - 1)) == 0; }
int log2_of(int x) {
  int n = 0;
  while ((1 << n) < x) ++n;
  return n;
}

/// Key/value heads worth of K and V that may be in use at once: they should stay in half of a Hopper L2.
int heads_per_section(const QkvView& qkv) {
  const int64_t bytes = 2 * qkv.seq_len * qkv.head_dim * 2, budget = 32ll << 20;
  const int fit = static_cast<int>(std::clamp<int64_t>(budget / std::max<int64_t>(bytes, 1), 1, qkv.kv_heads));
  const int least = (qkv.kv_heads + kMaxSections - 1) / kMaxSections;
  return std::max(fit, least);
}

}  // namespace

Result build_work_list(const QkvView& qkv, const PlanView& plan, bool pack, AttendParams& p) {
  bool any_tiles = false;
  for (int h = 0; h < qkv.q_heads; ++h) any_tiles = any_tiles || plan.heads[h].kind == 2;
  const int q_tile = any_tiles ? plan.q_tile : 128, k_tile = any_tiles ? plan.k_tile : 128;
  if (!(q_tile % 64 == 0 || (power_of_two(q_tile) && q_tile >= 16 && q_tile < 64)))
    return {Status::unsupported, "q_tile must be 16, 32 or a multiple of 64"};
  if (!(k_tile % 64 == 0 || k_tile == 16 || k_tile == 32))
    return {Status::unsupported, "k_tile must be 16, 32 or a multiple of 64"};
  if (qkv.q_heads > kMaxUnits) return {Status::unsupported, "more than 128 query heads"};
  if (plan.window_count > kMaxWindows) return {Status::unsupported, "more than 64 windows"};
  p.row_box = std::min(q_tile, 64);
  p.key_box = k_tile % 128 == 0 ? 128 : std::min(k_tile, 64);
  p.row_box_shift = log2_of(p.row_box);
  p.key_box_shift = log2_of(p.key_box);
  std::copy_n(plan.windows, plan.window_count, p.windows);

  WorkList& work = p.work;
  work.tiles = static_cast<int>((qkv.seq_len + 127) / 128);
  const int group = qkv.q_heads / qkv.kv_heads, per_section = heads_per_section(qkv);
  int units = 0, slots = 0, items = 0;
  work.sections = 0;
  for (int first_kv = 0; first_kv < qkv.kv_heads; first_kv += per_section) {
    const int first_slot = slots;
    work.section_item[work.sections] = items;
    work.section_slot[work.sections] = slots;
    for (int kv = first_kv; kv < std::min(first_kv + per_section, qkv.kv_heads); ++kv) {
      bool placed[kMaxUnits] = {};
      for (int g = 0; g < group; ++g) {
        if (placed[g]) continue;
        const RouteView route = plan.heads[kv * group + g];
        Unit& unit = work.units[units];
        unit = Unit{};
        unit.kv_head = static_cast<int16_t>(kv);
        unit.kind = route.kind;
        unit.index = route.index;
        unit.heads[unit.count++] = static_cast<int16_t>(kv * group + g);
        unit.pack = 1;
        if (route.kind == 2 && q_tile < 128) {
          const int most = 128 / q_tile;
          for (int other = g + 1; pack && other < group && unit.count < most; ++other) {
            const RouteView& r = plan.heads[kv * group + other];
            if (placed[other] || r.kind != route.kind || r.index != route.index) continue;
            placed[other] = true;
            unit.heads[unit.count++] = static_cast<int16_t>(kv * group + other);
          }
          // two 64-row plan rows of one head fit a tile as they are; smaller rows need packing
          if (q_tile < 64 || unit.count > 1) unit.pack = static_cast<uint8_t>(most);
        }
        if (slots + unit.pack > kMaxSlots) return {Status::unsupported, "too many small query tiles and heads"};
        for (int part = 0; part < unit.pack; ++part)
          work.slots[slots++] = {static_cast<uint8_t>(units), static_cast<uint8_t>(part)};
        ++units;
      }
    }
    const int64_t more = int64_t(work.tiles) * (slots - first_slot);
    if (items + more > (1 << 30)) return {Status::unsupported, "too many work items"};
    items += static_cast<int>(more);
    ++work.sections;
  }
  work.section_item[work.sections] = items;
  work.section_slot[work.sections] = slots;
  work.items = items;
  return {};
}

void keep_tiles(WorkList& work, int first, int count) {
  work.first_tile = first, work.tiles = count;
  for (int s = 0; s <= work.sections; ++s) work.section_item[s] = count * work.section_slot[s];
  work.items = work.section_item[work.sections];
}

}  // namespace prefill::kernels::cuda
