// D = X Wᵀ for few rows on Hopper (sm_90a): W [N, K] and X [M, K] row-major, 16 bit in, fp32 accumulated.
//
// The weights are wgmma's first operand (64 rows of W to an instruction), the activations its second, so that a row tile
// is any multiple of 16 and 290 rows cost 320, not 384. What holds a CTA is wgmma's rate, the 64 bytes a clock that come
// into its shared memory (hence tiles near square), and the latency of starting: the weights of the first stages are on
// their way before the kernel that makes X has ended (programmatic dependent launch). One producer thread keeps a ring
// of stages full; WARPGROUPS consumer warpgroups multiply. The CTAs of a cluster take neighbouring row tiles and share
// one tile of W by multicast. Persistent: a cluster takes tile after tile, loads of the next under the epilogue of the
// last.
//
// Comes after `hopper.cuh`. The host defines: ROWS (row tile), WARPGROUPS, SUBTILES (64-row tiles of W to a warpgroup),
// CLUSTER, STAGES, SPLITS, PDL, BF16, EPILOGUE (0 store, 1 fp32 partial sums, 2 SwiGLU, 3 QK-norm and RoPE, 4 sums over
// the cluster, whose CTAs then take one part of K each) and wgmma(accumulators, a, b).

#define STORE 0
#define PARTIALS 1
#define SWIGLU 2
#define QK_ROPE 3
#define REDUCE 4

constexpr int BK = 64;                                        // 128 bytes: one swizzle atom wide
constexpr int CONSUMERS = WARPGROUPS * 128;
// Two warpgroups with many accumulators need more registers than an even share: the producers' are handed to them.
constexpr bool HAND_OVER = WARPGROUPS == 2 && SUBTILES * ROWS / 2 > 80;
constexpr int THREADS = CONSUMERS + (HAND_OVER ? 128 : 32);
// CTAs side by side over the rows, sharing W; under REDUCE the cluster lies along K instead.
constexpr int SHARING = EPILOGUE == REDUCE ? 1 : CLUSTER;
constexpr int W_ROWS = 64 * WARPGROUPS * SUBTILES;            // rows of W in a stage
constexpr int W_BYTES = W_ROWS * BK * 2;
constexpr int X_BYTES = ROWS * BK * 2;
constexpr int STAGE_BYTES = W_BYTES + X_BYTES;
#if EPILOGUE == REDUCE
constexpr int SUM_STRIDE = W_ROWS + 4;                        // fp32
#elif EPILOGUE != PARTIALS
constexpr int OUT_COLUMNS = EPILOGUE == SWIGLU ? W_ROWS / 2 : W_ROWS;
constexpr int STAGING_STRIDE = OUT_COLUMNS + 8;               // 16-bit values; the odd 16 bytes avoid bank conflicts
#endif

// At the default scope: what is signalled is that wgmma has read a stage, not a write of this thread. At cluster scope
// the compiler puts a barrier to all memory before it, 500 clocks in each turn of the loop.
__device__ __forceinline__ void barrier_arrive_at(u32 bar, u32 cta) {
    if (SHARING == 1) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
    else asm volatile(
        "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(bar), "r"(cta) : "memory");
}
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

__device__ __forceinline__ void load_tile_for_all(u32 to, const TensorMap* map, u32 bar, int k, int row, u16 ctas) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to), "l"(map), "r"(bar), "r"(k), "r"(row), "h"(ctas)
        : "memory");
}

__device__ __forceinline__ float widen(u16 h) {
#if BF16
    return __uint_as_float((u32)h << 16);
#else
    float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(h)); return y;
#endif
}
__device__ __forceinline__ float low(u32 both) { return widen((u16)(both & 0xFFFF)); }
__device__ __forceinline__ float high(u32 both) { return widen((u16)(both >> 16)); }

#if BF16
#define PAIR "bf16x2"
#else
#define PAIR "f16x2"
#endif
__device__ __forceinline__ u32 multiply(u32 a, u32 b) {
    u32 c; asm("mul.rn." PAIR " %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c;
}
__device__ __forceinline__ u32 add(u32 a, u32 b) {
    u32 c; asm("add.rn." PAIR " %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c;
}
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }
__device__ __forceinline__ u32 gated(u32 gate, u32 up) {
    const u32 activated = pack(silu(low(gate)), silu(high(gate)));
    return pack(low(activated) * low(up), high(activated) * high(up));
}

__device__ __forceinline__ void consumers_sync() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

extern "C" __global__ void __launch_bounds__(THREADS, 1) hopper_gemm(
    const __grid_constant__ TensorMap x_map, const __grid_constant__ TensorMap w_map, void* out, int m_rows, int n_columns,
    int depth, int row_tiles, int column_tiles,
    // QK_ROPE only
    const int* rows, int row_width, int row_position, const u16* cosine, const u16* sine, const u16* q_weight,
    const u16* k_weight, float eps, int q_heads, int kv_heads) {
    extern __shared__ u8 shared_raw[];
    __shared__ alignas(8) u64 full_barriers[STAGES];
    __shared__ alignas(8) u64 empty_barriers[STAGES];
    const u32 ring = (shared_address(shared_raw) + 1023) & ~1023u;
    const u32 full = shared_address(full_barriers), empty = shared_address(empty_barriers);
#if EPILOGUE != PARTIALS
    const u32 staging = ring + STAGES * STAGE_BYTES;
#endif
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 rank = 0;
    if (CLUSTER > 1) asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));

    if (threadIdx.x == CONSUMERS) {
        asm volatile("prefetch.tensormap [%0];" ::"l"(&w_map) : "memory");
        asm volatile("prefetch.tensormap [%0];" ::"l"(&x_map) : "memory");
        for (int s = 0; s < STAGES; ++s) {
            barrier_init(full + 8 * s, 1);
            barrier_init(empty + 8 * s, SHARING * WARPGROUPS * 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (CLUSTER > 1) cluster_sync(); else __syncthreads();

    const int chunk = depth / SPLITS, k_tiles = chunk / BK;
    const int groups = row_tiles / SHARING;                   // clusters side by side over the rows
    const int tiles = groups * column_tiles * SPLITS;
    const int first = blockIdx.x / SHARING, step = gridDim.x / SHARING;  // under REDUCE split == rank, one tile to a CTA
#if EPILOGUE == REDUCE
    const u32 part = rank;
#endif
    if (SHARING == 1) rank = 0;

    if (warp >= WARPGROUPS * 4) {
        if (HAND_OVER) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == CONSUMERS) {
            constexpr u16 everyone = (u16)((1 << SHARING) - 1);
            constexpr int SHARE = W_ROWS / SHARING;           // what this CTA loads of W for the whole cluster
            auto weights = [&](int stage, int column, int k) {
                const u32 to = ring + stage * STAGE_BYTES, bar = full + 8 * stage;
                if (EPILOGUE == SWIGLU) {                     // gate rows, then the up rows of the same columns
                    constexpr int HALF = W_ROWS / 2, PART = HALF / SHARING;
                    for (int half = 0; half < 2; ++half) {
                        const int row = half * n_columns + column * HALF + rank * PART;
                        const u32 at = to + (half * HALF + rank * PART) * BK * 2;
                        if (SHARING > 1) load_tile_for_all(at, &w_map, bar, k, row, everyone);
                        else load_tile(at, &w_map, bar, k, row);
                    }
                } else {
                    const int row = column * W_ROWS + rank * SHARE;
                    const u32 at = to + rank * SHARE * BK * 2;
                    if (SHARING > 1) load_tile_for_all(at, &w_map, bar, k, row, everyone);
                    else load_tile(at, &w_map, bar, k, row);
                }
            };
            int stage = 0;
            u32 phase = 0;
            bool waited = false;
            for (int tile = first; tile < tiles; tile += step) {
                const int split = tile % SPLITS, rest = tile / SPLITS;
                const int row = ((rest % groups) * SHARING + rank) * ROWS, column = rest / groups;
                int ahead = 0;                                // stages whose weights are already asked for
                if (!waited) {
                    ahead = k_tiles < STAGES ? k_tiles : STAGES;
                    for (int s = 0; s < ahead; ++s) {
                        barrier_expect(full + 8 * s, STAGE_BYTES);
                        weights(s, column, split * chunk + s * BK);
                    }
#if PDL
                    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
                    waited = true;
                }
#pragma unroll 1
                for (int kt = 0; kt < k_tiles; ++kt) {
                    const int k = split * chunk + kt * BK;
                    if (kt >= ahead) {
                        barrier_wait(empty + 8 * stage, phase ^ 1);
                        barrier_expect(full + 8 * stage, STAGE_BYTES);
                        weights(stage, column, k);
                    }
                    load_tile(ring + stage * STAGE_BYTES + W_BYTES, &x_map, full + 8 * stage, k, row);
                    if (++stage == STAGES) { stage = 0; phase ^= 1; }
                }
            }
        }
        __syncwarp();
    } else {
        if (HAND_OVER) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int group = warp / 4;
        float acc[SUBTILES][ROWS / 2];
        int stage = 0;
        u32 phase = 0;
        for (int tile = first; tile < tiles; tile += step) {
            const int rest = tile / SPLITS;
            const int row = ((rest % groups) * SHARING + rank) * ROWS, column = rest / groups;
            // Zeroed, not overwritten by the first product: else the old values stay live through the epilogue.
#pragma unroll
            for (int t = 0; t < SUBTILES; ++t)
#pragma unroll
                for (int i = 0; i < ROWS / 2; ++i) acc[t][i] = 0.0f;
#if EPILOGUE == QK_ROPE
            // Asked for before it is needed: lane i keeps the position of this warp's i-th row.
            constexpr int ROWS_A_WARP = (ROWS + WARPGROUPS * 4 - 1) / (WARPGROUPS * 4);
            static_assert(ROWS_A_WARP <= 32, "a lane to a row");
            int position = 0;
            const int mine = warp + lane * WARPGROUPS * 4;
            if (mine < ROWS && row + mine < m_rows) position = rows[(u64)(row + mine) * row_width + row_position];
#endif
            int before = -1;
#pragma unroll 1
            for (int kt = 0; kt < k_tiles; ++kt) {
                barrier_wait(full + 8 * stage, phase);
                const u32 base = ring + stage * STAGE_BYTES;
                const u64 b = operand(base + W_BYTES);
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                for (int kk = 0; kk < BK / 16; ++kk) {
#pragma unroll
                    for (int t = 0; t < SUBTILES; ++t) {
                        // The tiles of a warpgroup lie WARPGROUPS apart: under SWIGLU t is gate or up of the same columns.
                        const u64 a = operand(base + (t * WARPGROUPS + group) * 64 * BK * 2);
                        wgmma(acc[t], a + 2 * kk, b + 2 * kk);
                    }
                }
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                if (before >= 0 && lane < SHARING) barrier_arrive_at(empty + 8 * before, lane);
                before = stage;
                if (++stage == STAGES) { stage = 0; phase ^= 1; }
            }
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#if PDL
            // Only now: CTAs of the next kernel that wait beside this one cost it 2 us a layer.
            asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
            // The values count from here on: what reads them must not move above the wait.
#pragma unroll
            for (int t = 0; t < SUBTILES; ++t)
#pragma unroll
                for (int i = 0; i < ROWS / 2; ++i) asm volatile("" : "+f"(acc[t][i])::"memory");
            if (lane < SHARING) barrier_arrive_at(empty + 8 * before, lane);

            // acc[t][4 j + 2 h + e] is column 64 tile + 16 (warp % 4) + lane / 4 + 8 h, row 8 j + 2 (lane % 4) + e.
#if EPILOGUE == PARTIALS
            float* partials = (float*)out + (u64)(tile % SPLITS) * m_rows * n_columns;
#pragma unroll
            for (int t = 0; t < SUBTILES; ++t) {
                const int n = column * W_ROWS + (t * WARPGROUPS + group) * 64 + (warp % 4) * 16 + lane / 4;
#pragma unroll
                for (int i = 0; i < ROWS / 2; ++i) {
                    const int m = row + 8 * (i / 4) + 2 * (lane % 4) + i % 2, at = n + 8 * (i / 2 % 2);
                    if (m < m_rows && at < n_columns) partials[(u64)m * n_columns + at] = acc[t][i];
                }
            }
#elif EPILOGUE == REDUCE
#pragma unroll
            for (int t = 0; t < SUBTILES; ++t) {
                const int n = (t * WARPGROUPS + group) * 64 + (warp % 4) * 16 + lane / 4;
#pragma unroll
                for (int i = 0; i < ROWS / 2; ++i) {
                    const int r = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
                    asm volatile("st.shared.f32 [%0], %1;" ::"r"(staging + (r * SUM_STRIDE + n + 8 * (i / 2 % 2)) * 4),
                                 "f"(acc[t][i]) : "memory");
                }
            }
#else
            if (tile != first) consumers_sync();              // everyone has read the last tile out of the staging
#pragma unroll
            for (int t = 0; t < (EPILOGUE == SWIGLU ? 1 : SUBTILES); ++t) {
                const int n = (t * WARPGROUPS + group) * 64 + (warp % 4) * 16 + (lane / 8 % 2) * 8;
#pragma unroll
                for (int j = 0; j < ROWS / 8; j += 2) {
                    u32 packed[4];
#pragma unroll
                    for (int q = 0; q < 4; ++q) {
                        const int i = 4 * (j + q / 2) + 2 * (q % 2);
                        packed[q] = pack(acc[t][i], acc[t][i + 1]);
#if EPILOGUE == SWIGLU
                        packed[q] = gated(packed[q], pack(acc[SUBTILES - 1][i], acc[SUBTILES - 1][i + 1]));
#endif
                    }
                    const u32 to = staging + ((8 * (j + lane / 16) + lane % 8) * STAGING_STRIDE + n) * 2;
                    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                                 "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3]) : "memory");
                }
            }
            u16* result = (u16*)out;
#if EPILOGUE == QK_ROPE
            // A tile is one head of 128: a warp takes a row, four values a lane, and the other half 16 lanes away.
            // Loads under way together: at 80 rows ten took 167 registers, five take 111.
            constexpr int AT_ONCE = ROWS_A_WARP % 5 == 0 || ROWS_A_WARP % 5 > 2 ? 5 : 6;
            const bool turn = column < q_heads + kv_heads;
            uint2 weight = {};
            if (turn) weight = *(const uint2*)((column < q_heads ? q_weight : k_weight) + 4 * lane);
            const u32 sign = lane < 16 ? 0x80008000u : 0u;
#pragma unroll 1
            for (int i = 0; i < ROWS_A_WARP; i += AT_ONCE) {
                uint2 c[AT_ONCE], s[AT_ONCE], value[AT_ONCE];
#pragma unroll
                for (int j = 0; j < AT_ONCE; ++j) {
                    const u64 angle = (u64)__shfl_sync(0xFFFFFFFF, position, i + j) * 64 + 4 * (lane % 16);
                    if (turn) c[j] = *(const uint2*)(cosine + angle), s[j] = *(const uint2*)(sine + angle);
                }
                if (i == 0) consumers_sync();
#pragma unroll
                for (int j = 0; j < AT_ONCE; ++j) {
                    const int r = warp + (i + j) * WARPGROUPS * 4;
                    if (r < ROWS)
                        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value[j].x), "=r"(value[j].y)
                                     : "r"(staging + (r * STAGING_STRIDE + 4 * lane) * 2));
                }
#pragma unroll
                for (int j = 0; j < AT_ONCE; ++j) {
                    const int r = warp + (i + j) * WARPGROUPS * 4, m = row + r;
                    uint2 v = value[j];
                    if (turn) {
                        const float f[4] = {low(v.x), high(v.x), low(v.y), high(v.y)};
                        float sum = f[0] * f[0] + f[1] * f[1] + f[2] * f[2] + f[3] * f[3];
#pragma unroll
                        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, d);
                        const float rstd = rsqrtf(sum * (1.0f / 128.0f) + eps);
                        // 16-bit products and sums round as fp32 ones that are rounded after.
                        v.x = multiply(pack(f[0] * rstd, f[1] * rstd), weight.x);
                        v.y = multiply(pack(f[2] * rstd, f[3] * rstd), weight.y);
                        const u32 other_x = __shfl_xor_sync(0xFFFFFFFF, v.x, 16);
                        const u32 other_y = __shfl_xor_sync(0xFFFFFFFF, v.y, 16);
                        v.x = add(multiply(v.x, c[j].x), multiply(other_x, s[j].x) ^ sign);
                        v.y = add(multiply(v.y, c[j].y), multiply(other_y, s[j].y) ^ sign);
                    }
                    if (r < ROWS && m < m_rows) *(uint2*)(result + (u64)m * n_columns + column * 128 + 4 * lane) = v;
                }
            }
#else
            consumers_sync();
            constexpr int CHUNKS = OUT_COLUMNS / 8;
            for (int i = threadIdx.x; i < ROWS * CHUNKS; i += CONSUMERS) {
                const int r = i / CHUNKS, n = column * OUT_COLUMNS + i % CHUNKS * 8;
                if (row + r < m_rows && n < n_columns) {
                    uint4 v;
                    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                                 : "r"(staging + (r * STAGING_STRIDE + i % CHUNKS * 8) * 2) : "memory");
                    *(uint4*)(result + (u64)(row + r) * n_columns + n) = v;
                }
            }
#endif
#endif
        }
    }
#if EPILOGUE == REDUCE
    // Every CTA of the cluster adds up a share of the rows, in the order of K.
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    {
        const int rest = first / SPLITS, row = (rest % groups) * ROWS, column = rest / groups;
        constexpr int CHUNKS = W_ROWS / 8, SHARE = (ROWS + SPLITS - 1) / SPLITS;
        for (int i = threadIdx.x; i < SHARE * CHUNKS; i += THREADS) {
            const int r = (int)part * SHARE + i / CHUNKS, n = i % CHUNKS * 8, m = row + r;
            if (r >= ROWS) break;
            float sum[8] = {};
#pragma unroll
            for (int p = 0; p < SPLITS; ++p) {
                u32 remote;
                float4 a, b;
                asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote)
                             : "r"(staging + (r * SUM_STRIDE + n) * 4), "r"(p));
                asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(a.x), "=f"(a.y), "=f"(a.z), "=f"(a.w)
                             : "r"(remote) : "memory");
                asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(b.x), "=f"(b.y), "=f"(b.z), "=f"(b.w)
                             : "r"(remote + 16) : "memory");
                sum[0] += a.x, sum[1] += a.y, sum[2] += a.z, sum[3] += a.w;
                sum[4] += b.x, sum[5] += b.y, sum[6] += b.z, sum[7] += b.w;
            }
            if (m < m_rows && column * W_ROWS + n < n_columns)
                *(uint4*)((u16*)out + (u64)m * n_columns + column * W_ROWS + n) =
                    make_uint4(pack(sum[0], sum[1]), pack(sum[2], sum[3]), pack(sum[4], sum[5]), pack(sum[6], sum[7]));
        }
    }
#endif
    // Peers may still write into this CTA's shared memory or arrive at its barriers: leave together.
    if (CLUSTER > 1) { __syncwarp(); cluster_sync(); }
}
