// Scores of strided token groups for Hopper, S = Q' K'^T with Q' = [groups, stride * D] a view of Q and K'
// one of K whose tokens are in another order inside a group: the copy engine reads tokens of a group as a
// dimension of their own, so that neither is ever written, and the order is that of the loop over the reduced
// dimension. Scores stay in registers: a tile leaves the largest score of each row and the sums of
// exponentials over each block of columns, relative to it.
#include <algorithm>

#include "kernels/cuda/sm90_primitives.cuh"
#include "kernels/cuda/strided_mass.h"

namespace prefill::kernels::cuda {
namespace {

constexpr int kStages = 4, kDepth = 64;  ///< of the reduced dimension in a stage: one row of the swizzle
constexpr int kInfoRing = 8;             ///< more than the tiles that kStages can belong to
constexpr uint64_t kTooLong = 20'000'000'000;  ///< ns

struct TileInfo {
  int slot, row, col;  ///< tile in the scratch memory; first query group, first key group
};

struct alignas(1024) ScoreLayout {
  static constexpr int kQueryBytes = kScoreRows * kDepth * 2, kKeyBytes = kScoreCols * kDepth * 2;
  uint8_t q[kStages * kQueryBytes], k[kStages * kKeyBytes];
  uint64_t full[kStages], empty[kStages];
  TileInfo info[kInfoRing];
};

/// Box at (x, token, group, head) of a 4-d tensor to shared memory.
__device__ __forceinline__ void load_groups(void* dst, const CUtensorMap* map, uint64_t* bar, int x,
                                            int token, int group, int head) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2];" ::"r"(smem_address(dst)),
      "l"(map), "r"(smem_address(bar)), "r"(x), "r"(token), "r"(group), "r"(head)
      : "memory");
}

/// As mbarrier_wait, but a wait of many seconds ends the kernel with an error: the device is not lost to a
/// mistake here.
__device__ __forceinline__ void wait_or_trap(uint64_t* bar, uint32_t parity) {
  uint64_t since = 0;
  for (;;) {
    uint32_t done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(smem_address(bar)), "r"(parity)
        : "memory");
    if (done) return;
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    if (!since) since = now;
    if (now - since > kTooLong) __trap();
  }
}

#define PREFILL_ACC128(d)                                                                               \
  PREFILL_ACC64(d), PREFILL_ACC8(d, 64), PREFILL_ACC8(d, 72), PREFILL_ACC8(d, 80), PREFILL_ACC8(d, 88), \
      PREFILL_ACC8(d, 96), PREFILL_ACC8(d, 104), PREFILL_ACC8(d, 112), PREFILL_ACC8(d, 120)

/// s[64 x 256] (+)= A[64 x 16] B[256 x 16]^T, both in shared memory, the reduced dimension contiguous.
template <class T>
__device__ __forceinline__ void wgmma_ss_n256(float (&d)[128], uint64_t a, uint64_t b, bool accumulate) {
#define PREFILL_SS(type)                                                                           \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                                \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                 \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
      "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
      "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, " \
      "%74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, " \
      "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, "   \
      "%108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, " \
      "%123, %124, %125, %126, %127}, %128, %129, p, 1, 1, 0, 0;\n}\n"                             \
      : PREFILL_ACC128(d)                                                                          \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
  if constexpr (std::is_same_v<T, __half>)
    PREFILL_SS("f16");
  else
    PREFILL_SS("bf16");
#undef PREFILL_SS
}

struct Tile {
  int head, kv_head, row, col;  ///< head of this launch; row and column of tiles
};

/// Tiles of a launch by number. Some 32 rows of tiles that read the same keys, those of the query heads of a
/// key head among them, walk the columns together: so many tiles of Q and a few of K are what L2 has to hold.
struct TileOrder {
  const StridedParams& p;
  int kv_head = 0, first = 0, last = 0;  // band of rows
  int begin = 0, count = 0;              // number of its first tile, of its tiles

  __device__ __forceinline__ int group() const { return p.q_heads / p.kv_heads; }
  /// Numbers must not fall from call to call.
  __device__ __forceinline__ Tile at(int id) {
    while (id - begin >= count) {
      begin += count;
      if (last == p.row_tiles) last = 0, ++kv_head;
      first = last, last = min(first + p.band, p.row_tiles);
      count = group() * (tiles_before(last) - tiles_before(first));
    }
    int rest = id - begin, from = first, col = 0;
    const int whole = tile_columns(first), every = group() * (last - first);
    if (rest < whole * every) {
      col = rest / every, rest %= every;
    } else {  // columns that the first rows of the band do not see
      rest -= whole * every, col = whole;
      for (;; ++col) {
        from = max(from, col * (kScoreCols / kScoreRows));
        const int seen = group() * (last - from);
        if (rest < seen) break;
        rest -= seen;
      }
    }
    const int rows = last - from;
    return {kv_head * group() + rest / rows, kv_head, from + rest % rows, col};
  }
};

/// The loading warp, one lane of it.
__device__ __forceinline__ void load_tiles(const StridedParams& p, ScoreLayout& shared, int all) {
  const int group = p.q_heads / p.kv_heads, per_head = tiles_before(p.row_tiles);
  TileOrder order{p};
  uint32_t stage = 0, tile = 0;
  for (int id = int(blockIdx.x); id < all; id += int(gridDim.x), ++tile) {
    const Tile t = order.at(id);
    const int row = t.row * kScoreRows, col = t.col * kScoreCols;
    for (int token = 0; token < p.stride; ++token) {
      const int key_token = p.key_order[token];
      const CUtensorMap *q = &p.q[token >= p.partial], *k = &p.k[key_token >= p.partial];
      for (int half = 0; half < p.halves; ++half, ++stage) {
        const uint32_t at = stage % kStages;
        wait_or_trap(&shared.empty[at], ((stage / kStages) & 1) ^ 1);
        if (token == 0 && half == 0)
          shared.info[tile % kInfoRing] = {t.head * per_head + tiles_before(t.row) + t.col, row, col};
        mbarrier_arrive_expect(&shared.full[at], ScoreLayout::kQueryBytes + ScoreLayout::kKeyBytes);
        load_groups(shared.q + at * ScoreLayout::kQueryBytes, q, &shared.full[at], half * kDepth, token, row,
                    p.first_kv_head * group + t.head);
        load_groups(shared.k + at * ScoreLayout::kKeyBytes, k, &shared.full[at], half * kDepth, key_token,
                    col, p.first_kv_head + t.kv_head);
      }
    }
  }
}

/// Sums of blocks of kBlock columns of one row, of which v[j] holds columns 8j + 2 (lane % 4) and the next.
template <int kBlock>
__device__ __forceinline__ void store_sums(const float (&v)[32], float* row, int lane) {
  if constexpr (kBlock == 2) {
#pragma unroll
    for (int j = 0; j < 32; ++j) row[4 * j + (lane & 3)] = v[j];
  } else if constexpr (kBlock == 4) {
    const bool upper = lane & 1;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const float send = upper ? v[j] : v[j + 16], keep = upper ? v[j + 16] : v[j];
      row[2 * (j + (upper ? 16 : 0)) + ((lane >> 1) & 1)] = keep + __shfl_xor_sync(0xffffffffu, send, 1);
    }
  } else {
    constexpr int kMany = 8 * 32 / kBlock, kTwo = kMany / 2, kMine = kMany / 4;
    float w[kMany];
#pragma unroll
    for (int i = 0; i < kMany; ++i) {
      w[i] = v[i * (kBlock / 8)];
#pragma unroll
      for (int j = 1; j < kBlock / 8; ++j) w[i] += v[i * (kBlock / 8) + j];
    }
#pragma unroll
    for (int i = 0; i < kTwo; ++i) {
      const float send = lane & 2 ? w[i] : w[i + kTwo], keep = lane & 2 ? w[i + kTwo] : w[i];
      w[i] = keep + __shfl_xor_sync(0xffffffffu, send, 2);
    }
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const float send = lane & 1 ? w[i] : w[i + kMine], keep = lane & 1 ? w[i + kMine] : w[i];
      w[i] = keep + __shfl_xor_sync(0xffffffffu, send, 1);
    }
    float* to = row + kMine * (lane & 3);
    if constexpr (kMine >= 4) {
#pragma unroll
      for (int i = 0; i < kMine; i += 4)
        __stcs(reinterpret_cast<float4*>(to + i), make_float4(w[i], w[i + 1], w[i + 2], w[i + 3]));
    } else {
#pragma unroll
      for (int i = 0; i < kMine; ++i) __stcs(to + i, w[i]);
    }
  }
}

template <class T>
__device__ __forceinline__ float rounded(float x) {
  if constexpr (std::is_same_v<T, __half>)
    return __half2float(__float2half_rn(x));
  else
    return __bfloat162float(__float2bfloat16_rn(x));
}

/// What is kept of a warp's 16 x 256 scores; element 4j + e of s is row lane/4 + 8 (e/2), column
/// 8j + 2 (lane%4) + e%2.
template <class T>
__device__ __forceinline__ void finish_tile(const StridedParams& p, float (&s)[128], const TileInfo& info,
                                            int in_tile, int lane) {
  if (p.rounded) {
#pragma unroll
    for (int i = 0; i < 128; ++i) s[i] = rounded<T>(s[i]);
  }
  if (info.col + kScoreCols - 1 > info.row + in_tile) {
    const int seen = info.row + in_tile + (lane >> 2) - info.col - 2 * (lane & 3);  // columns up to this one
#pragma unroll
    for (int i = 0; i < 128; ++i)
      if (8 * (i / 4) + (i & 1) > seen + 8 * ((i >> 1) & 1)) s[i] = -INFINITY;
  }
  const int per_row = kScoreCols / p.per_block;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float high = -INFINITY;
#pragma unroll
    for (int j = 0; j < 32; ++j) high = fmaxf(high, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
    high *= p.scale_log2;  // positive
    const float base = high == -INFINITY ? 0.f : high;
    float v[32], total = 0.f;
#pragma unroll
    for (int j = 0; j < 32; ++j) {
      v[j] = exp2_fast(fmaf(s[4 * j + 2 * r], p.scale_log2, -base)) +
             exp2_fast(fmaf(s[4 * j + 2 * r + 1], p.scale_log2, -base));
      total += v[j];
    }
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const int64_t at = int64_t(info.slot) * kScoreRows + in_tile + (lane >> 2) + 8 * r;
    if ((lane & 3) == 0) p.stats[at] = make_float2(high, total);
    float* to = p.sums + at * per_row;
    switch (p.per_block) {
      case 2:
        store_sums<2>(v, to, lane);
        break;
      case 4:
        store_sums<4>(v, to, lane);
        break;
      case 8:
        store_sums<8>(v, to, lane);
        break;
      case 16:
        store_sums<16>(v, to, lane);
        break;
      case 32:
        store_sums<32>(v, to, lane);
        break;
      default:
        store_sums<64>(v, to, lane);
        break;
    }
  }
}

/// One consumer warpgroup: 64 rows of every tile of this thread block.
template <class T>
__device__ __forceinline__ void consume_tiles(const StridedParams& p, ScoreLayout& shared, int all, int wg) {
  const int lane = threadIdx.x & 31, in_tile = 64 * wg + 16 * ((threadIdx.x >> 5) & 3),
            steps = p.stride * p.halves;
  const uint64_t q_tile = matrix_descriptor(smem_address(shared.q) + wg * (64 * kDepth * 2), 16, 1024);
  const uint64_t k_tile = matrix_descriptor(smem_address(shared.k), 16, 1024);
  uint32_t stage = 0, tile = 0;
  float s[128];
  for (int id = int(blockIdx.x); id < all; id += int(gridDim.x), ++tile) {
#pragma unroll
    for (int i = 0; i < 128; ++i) asm volatile("" : "=f"(s[i]));  // the first product overwrites them
    for (int step = 0; step < steps; ++step, ++stage) {
      const uint32_t at = stage % kStages;
      wait_or_trap(&shared.full[at], (stage / kStages) & 1);
      wgmma_fence();
      const uint64_t q = q_tile + at * (ScoreLayout::kQueryBytes / 16),
                     k = k_tile + at * (ScoreLayout::kKeyBytes / 16);
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) wgmma_ss_n256<T>(s, q + 2 * i, k + 2 * i, step + i != 0);
      wgmma_commit();
      if (step > 0) {
        wgmma_wait<1>();
        mbarrier_arrive(&shared.empty[(stage - 1) % kStages]);
      }
    }
    wgmma_wait<0>();
    pin(s);
    const TileInfo info = shared.info[tile % kInfoRing];
    mbarrier_arrive(&shared.empty[(stage - 1) % kStages]);
    finish_tile<T>(p, s, info, in_tile, lane);
  }
}

template <class T>
__global__ void __launch_bounds__(384, 1)
    strided_scores_kernel(const __grid_constant__ StridedParams p, int kv_heads) {
  extern __shared__ __align__(1024) uint8_t raw[];  // the swizzle needs the alignment
  auto& shared = *reinterpret_cast<ScoreLayout*>(raw);
  if (threadIdx.x == 0) {
    if (smem_address(raw) % 1024) __trap();
    for (int i = 0; i < kStages; ++i) mbarrier_init(&shared.full[i], 1), mbarrier_init(&shared.empty[i], 256);
    mbarrier_init_fence();
  }
  __syncthreads();
  const int all = kv_heads * (p.q_heads / p.kv_heads) * tiles_before(p.row_tiles);
  const int group = threadIdx.x / 128;
  if (group == 0) {
    set_registers_down<56>();
    if (threadIdx.x == 0) load_tiles(p, shared, all);
  } else {
    set_registers_up<224>();
    consume_tiles<T>(p, shared, all, group - 1);
  }
}

template <class T>
cudaError_t launch(const StridedParams& p, int kv_heads, int multiprocessors, cudaStream_t stream) {
  constexpr int kBytes = sizeof(ScoreLayout);
  static_assert(kBytes <= 227 * 1024);
  if (const auto rc =
          cudaFuncSetAttribute(strided_scores_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
      rc != cudaSuccess)
    return rc;
  const int tiles = kv_heads * (p.q_heads / p.kv_heads) * tiles_before(p.row_tiles);
  strided_scores_kernel<T><<<unsigned(std::min(tiles, multiprocessors)), 384, kBytes, stream>>>(p, kv_heads);
  return cudaGetLastError();
}

}  // namespace

cudaError_t strided_scores_sm90(const StridedParams& p, int kv_heads, bool half, int multiprocessors,
                                cudaStream_t stream) {
  return half ? launch<__half>(p, kv_heads, multiprocessors, stream)
              : launch<__nv_bfloat16>(p, kv_heads, multiprocessors, stream);
}

}  // namespace prefill::kernels::cuda
