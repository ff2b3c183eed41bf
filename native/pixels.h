// Tiling and blending, for the CPU and for CUDA.
//
// A frame is rows of bytes; a sample is one byte, or two in little-endian order. Every function
// computes one row of a step: its elements `first`, `first + stride`, and so on. The threads of a
// GPU share a row; the CPU computes all of it (first 0, stride 1). The results are bit-identical to
// those of sr_deploy/tiling/blender.py in numpy: every float operation rounds, so the compilers
// must not fuse a multiplication with an addition.
//
// sr_deploy/tiling/native.py has the same structures with the same fields in the same order.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SR_BOTH __host__ __device__ inline
#else
#define SR_BOTH inline
#endif

namespace sr {

// Copies a tile out of a frame, which is extended by reflection.
struct Gather {
    const uint8_t *frame;
    uint8_t *tile;          // contiguous
    int64_t pitch;          // bytes from one row of the frame to the next
    int32_t frame_height, frame_width;
    int32_t top, left;      // position of the tile in the frame
    int32_t height, width;  // size of the tile
    int32_t depth;          // bytes per pixel
};

// Copies a part of a tile's result into the upscaled frame; the first `ramp` columns are blended
// with the tile on the left.
struct Scatter {
    const uint8_t *part;
    uint8_t *out;
    int64_t part_pitch, out_pitch;
    int32_t height, width;  // size of the part in pixels
    int32_t ramp;
    int32_t channels;
    int32_t sample;         // bytes per sample
};

// Blends rows with the result of the row of tiles above.
struct Mix {
    const uint8_t *above;   // contiguous
    uint8_t *out;
    int64_t out_pitch;
    int32_t height;
    int32_t samples;        // per row
    int32_t sample;         // bytes per sample
};

// Reflects an index: 0 1 ... n-1 n-2 ... 1 0 1 ...
SR_BOTH int32_t reflected(int32_t index, int32_t length) {
    if (index < length) return index;
    if (length == 1) return 0;
    const int32_t period = 2 * (length - 1);
    index %= period;
    return index < length ? index : period - index;
}

// Smoothstep from 0 to 1; its slope is 0 at both ends.
SR_BOTH float rise(int32_t index, int32_t length) {
    const float position = (static_cast<float>(index) + 0.5f) / static_cast<float>(length);
    return position * position * (3.0f - 2.0f * position);
}

// Rounds half to even: above 2^23, floats have no fraction. (rintf would be a function call.)
template <typename Sample>
SR_BOTH Sample mixed(Sample before, Sample after, float weight) {
    const float old = static_cast<float>(before);
    const float value = old + (static_cast<float>(after) - old) * weight;
    return static_cast<Sample>(static_cast<int32_t>((value + 8388608.0f) - 8388608.0f));
}

// Copies the bytes `first`, `first + stride`, and so on; on the CPU, all of them.
SR_BOTH void copy(uint8_t *to, const uint8_t *from, int64_t count, int32_t first, int32_t stride) {
#ifdef __CUDA_ARCH__
    for (int64_t i = first; i < count; i += stride) to[i] = from[i];
#else
    if (count > 0) std::memcpy(to, from, count);
#endif
}

SR_BOTH void gather_row(const Gather &step, int32_t row, int32_t first, int32_t stride) {
    const int32_t y = reflected(step.top + row, step.frame_height);
    const uint8_t *from = step.frame + y * step.pitch;
    uint8_t *to = step.tile + static_cast<int64_t>(row) * step.width * step.depth;
    const int32_t left_over = step.frame_width - step.left;
    const int32_t inside = left_over < 0 ? 0 : left_over < step.width ? left_over : step.width;
    copy(to, from + step.left * step.depth, inside * step.depth, first, stride);
    for (int32_t x = inside + first; x < step.width; x += stride) {
        const uint8_t *pixel = from + reflected(step.left + x, step.frame_width) * step.depth;
        for (int32_t i = 0; i < step.depth; ++i) to[x * step.depth + i] = pixel[i];
    }
}

template <typename Sample>
SR_BOTH void scatter_row(const Scatter &step, int32_t row, int32_t first, int32_t stride) {
    const Sample *__restrict from =
        reinterpret_cast<const Sample *>(step.part + row * step.part_pitch);
    Sample *__restrict to = reinterpret_cast<Sample *>(step.out + row * step.out_pitch);
    const int32_t ramp = step.ramp, channels = step.channels;
    for (int32_t x = first; x < ramp; x += stride) {
        const float weight = rise(x, ramp);
        for (int32_t i = x * channels; i < (x + 1) * channels; ++i)
            to[i] = mixed(to[i], from[i], weight);
    }
    const int64_t mixed_bytes = ramp * channels * sizeof(Sample);
    copy(reinterpret_cast<uint8_t *>(to) + mixed_bytes,
         reinterpret_cast<const uint8_t *>(from) + mixed_bytes,
         step.width * channels * sizeof(Sample) - mixed_bytes, first, stride);
}

template <typename Sample>
SR_BOTH void mix_row(const Mix &step, int32_t row, int32_t first, int32_t stride) {
    const float weight = rise(row, step.height);
    const Sample *__restrict above =
        reinterpret_cast<const Sample *>(step.above) + static_cast<int64_t>(row) * step.samples;
    Sample *__restrict to = reinterpret_cast<Sample *>(step.out + row * step.out_pitch);
    const int32_t samples = step.samples;
    for (int32_t i = first; i < samples; i += stride) to[i] = mixed(above[i], to[i], weight);
}

SR_BOTH void scatter_row(const Scatter &step, int32_t row, int32_t first, int32_t stride) {
    if (step.sample == 1) {
        scatter_row<uint8_t>(step, row, first, stride);
    } else {
        scatter_row<uint16_t>(step, row, first, stride);
    }
}

SR_BOTH void mix_row(const Mix &step, int32_t row, int32_t first, int32_t stride) {
    if (step.sample == 1) {
        mix_row<uint8_t>(step, row, first, stride);
    } else {
        mix_row<uint16_t>(step, row, first, stride);
    }
}

}  // namespace sr
