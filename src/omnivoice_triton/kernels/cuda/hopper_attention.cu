// Bidirectional attention over packed segments on Hopper (sm_90a), heads of 128, two query heads to a key head.
//
//     o = softmax(q kᵀ scale) v        every query sees every key of its own segment, and no other
//
// A CTA takes one entry of the tile table and one key head: 32 positions of both query heads are the 64 rows of a
// wgmma, and WARPGROUPS of them share the keys. A segment of a few hundred rows is all latency: one producer thread asks
// for Q and as many blocks of K and V as the ring holds at once, scores stay in registers and feed the second product
// from there. Flash attention (Dao, arXiv 2205.14135): fp32 scores, running maximum and accumulator; probabilities are
// rounded to 16 bits for the second product.
//
// Comes after `hopper.cuh`. The host defines: WARPGROUPS, STAGES, PDL, BF16, wgmma_scores(s, q, k, accumulate) and
// wgmma_values(o, p, v).

constexpr int KEYS = 64;                                      // to a block
constexpr int CONSUMERS = WARPGROUPS * 128, THREADS = CONSUMERS + 32;
constexpr int Q_BYTES = 64 * 128 * 2;                         // of a warpgroup: two halves of the head, 64 rows each
constexpr int HALF_BYTES = KEYS * 64 * 2;                     // half of the head for one block of K or V
constexpr int BLOCK_BYTES = 2 * HALF_BYTES;
constexpr int STAGING_STRIDE = 128 + 8;

__device__ __forceinline__ void barrier_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ float exp2_of(float x) {
    float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y;
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFF, x, 2);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) hopper_attention(
    const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap kv_map, u16* out, const int* tiles,
    int tile_width, int at_start, int at_length, int at_offset, int q_heads, int kv_heads, float factor) {
    extern __shared__ u8 shared_raw[];
    __shared__ alignas(8) u64 barriers[1 + 3 * STAGES];
    const u32 queries = (shared_address(shared_raw) + 1023) & ~1023u;
    const u32 ring = queries + WARPGROUPS * Q_BYTES, staging = ring + STAGES * 2 * BLOCK_BYTES;
    const u32 q_full = shared_address(barriers), k_full = q_full + 8, v_full = k_full + 8 * STAGES;
    const u32 empty = v_full + 8 * STAGES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, kv_head = blockIdx.y;
#if PDL
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    const int* entry = tiles + blockIdx.x * tile_width;
    const int length = entry[at_length];
    if (length <= 0) return;
    const int start = entry[at_start], offset = entry[at_offset];
    const int blocks = (length + KEYS - 1) / KEYS;

    if (threadIdx.x == CONSUMERS) {
        asm volatile("prefetch.tensormap [%0];" ::"l"(&q_map) : "memory");
        asm volatile("prefetch.tensormap [%0];" ::"l"(&kv_map) : "memory");
        barrier_init(q_full, 1);
        for (int s = 0; s < STAGES; ++s) {
            barrier_init(k_full + 8 * s, 1);
            barrier_init(v_full + 8 * s, 1);
            barrier_init(empty + 8 * s, WARPGROUPS * 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    if (warp == WARPGROUPS * 4) {
        if (lane == 0) {
#if PDL
            asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
            barrier_expect(q_full, WARPGROUPS * Q_BYTES);
            for (int w = 0; w < WARPGROUPS; ++w)
                for (int half = 0; half < 2; ++half)
                    for (int head = 0; head < 2; ++head)
                        load_tile(queries + w * Q_BYTES + half * (Q_BYTES / 2) + head * (32 * 128), &q_map, q_full,
                                  (2 * kv_head + head) * 128 + half * 64, start + offset + 32 * w);
            const int k_column = (q_heads + kv_head) * 128, v_column = (q_heads + kv_heads + kv_head) * 128;
            int stage = 0;
            u32 phase = 0;
#pragma unroll 1
            for (int block = 0; block < blocks; ++block) {
                const u32 k = ring + stage * 2 * BLOCK_BYTES, v = k + BLOCK_BYTES;
                const int row = start + block * KEYS;
                if (block >= STAGES) barrier_wait(empty + 8 * stage, phase ^ 1);
                barrier_expect(k_full + 8 * stage, BLOCK_BYTES);
                load_tile(k, &kv_map, k_full + 8 * stage, k_column, row);
                load_tile(k + HALF_BYTES, &kv_map, k_full + 8 * stage, k_column + 64, row);
                barrier_expect(v_full + 8 * stage, BLOCK_BYTES);
                load_tile(v, &kv_map, v_full + 8 * stage, v_column, row);
                load_tile(v + HALF_BYTES, &kv_map, v_full + 8 * stage, v_column + 64, row);
                if (++stage == STAGES) { stage = 0; phase ^= 1; }
            }
        }
        return;
    }

    const int group = warp / 4;
    float o[2][32] = {};
    float peak[2] = {-__int_as_float(0x7f800000), -__int_as_float(0x7f800000)}, total[2] = {0.0f, 0.0f};
    int stage = 0;
    u32 phase = 0;
    barrier_wait(q_full, 0);
#pragma unroll 1
    for (int block = 0; block < blocks; ++block) {
        const u32 k = ring + stage * 2 * BLOCK_BYTES, v = k + BLOCK_BYTES;
        float s[32];
        barrier_wait(k_full + 8 * stage, phase);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u64 a = operand(queries + group * Q_BYTES + half * (Q_BYTES / 2)), b = operand(k + half * HALF_BYTES);
#pragma unroll
            for (int kk = 0; kk < 4; ++kk) wgmma_scores(s, a + 2 * kk, b + 2 * kk, half + kk != 0);
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
        for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(s[i])::"memory");

        // s[4 j + 2 h + e] is row lane / 4 + 8 h of the warp's 16, key 8 j + 2 (lane % 4) + e of the block.
        const int left = length - block * KEYS;
        if (left < KEYS) {
#pragma unroll
            for (int i = 0; i < 32; ++i)
                if (8 * (i / 4) + 2 * (lane % 4) + i % 2 >= left) s[i] = -__int_as_float(0x7f800000);
        }
        u32 p[16];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float most = s[2 * h];
#pragma unroll
            for (int j = 0; j < 8; ++j) most = fmaxf(most, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
            most = fmaxf(peak[h], quad_max(most) * factor);
            const float shrink = exp2_of(peak[h] - most);
            peak[h] = most;
            float sum = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float a = exp2_of(s[4 * j + 2 * h] * factor - most);
                const float b = exp2_of(s[4 * j + 2 * h + 1] * factor - most);
                sum += a + b;
                p[2 * j + h] = pack(a, b);
            }
            total[h] = total[h] * shrink + sum;
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    o[half][4 * j + 2 * h] *= shrink;
                    o[half][4 * j + 2 * h + 1] *= shrink;
                }
        }
        barrier_wait(v_full + 8 * stage, phase);
        if (left < KEYS) {
            // Rows after the segment are somebody else's: their weight is 0, but 0 * infinity is not.
            for (int i = threadIdx.x; i < (KEYS - left) * 16; i += CONSUMERS) {
                const u32 at = v + (i % 2) * HALF_BYTES + (left + i / 16) * 128 + (i / 2 % 8) * 16;
                asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
            }
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory");
        }
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int kk = 0; kk < KEYS / 16; ++kk)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                wgmma_values(o[half], p[4 * kk], p[4 * kk + 1], p[4 * kk + 2], p[4 * kk + 3],
                             operand(v + half * HALF_BYTES) + kk * (2048 >> 4));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(o[half][i])::"memory");
        if (lane == 0) barrier_arrive(empty + 8 * stage);
        if (++stage == STAGES) { stage = 0; phase ^= 1; }
    }

    const float scale[2] = {1.0f / quad_sum(total[0]), 1.0f / quad_sum(total[1])};
    const u32 mine = staging + warp * 16 * STAGING_STRIDE * 2;  // the warp's 16 rows
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            const u32 to = mine + ((lane % 16) * STAGING_STRIDE + half * 64 + 8 * (j + lane / 16)) * 2;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                         "r"(pack(o[half][4 * j] * scale[0], o[half][4 * j + 1] * scale[0])),
                         "r"(pack(o[half][4 * j + 2] * scale[1], o[half][4 * j + 3] * scale[1])),
                         "r"(pack(o[half][4 * j + 4] * scale[0], o[half][4 * j + 5] * scale[0])),
                         "r"(pack(o[half][4 * j + 6] * scale[1], o[half][4 * j + 7] * scale[1])) : "memory");
        }
    __syncwarp();
    const int head = 2 * kv_head + warp % 4 / 2;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int r = 2 * i + lane / 16;                      // of the warp's rows; 32 positions to a head
        const int position = offset + 32 * group + (warp % 2) * 16 + r;
        if (position < length) {
            uint4 x;
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                         : "r"(mine + (r * STAGING_STRIDE + (lane % 16) * 8) * 2) : "memory");
            *(uint4*)(out + ((u64)(start + position) * q_heads + head) * 128 + (lane % 16) * 8) = x;
        }
    }
}
