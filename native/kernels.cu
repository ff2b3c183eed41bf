// The steps on the GPU. Each row of pixels has a row of blocks (see `Kernels.launch` in
// sr_deploy/backends/cuda/driver.py); blocks loop over rows beyond the grid.

#include "pixels.h"

#define SR_FIRST static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x)
#define SR_STRIDE static_cast<int32_t>(gridDim.x * blockDim.x)

extern "C" __global__ void sr_gather(const sr::Gather step) {
    for (int32_t row = blockIdx.y; row < step.height; row += gridDim.y)
        sr::gather_row(step, row, SR_FIRST, SR_STRIDE);
}

extern "C" __global__ void sr_scatter(const sr::Scatter step) {
    for (int32_t row = blockIdx.y; row < step.height; row += gridDim.y)
        sr::scatter_row(step, row, SR_FIRST, SR_STRIDE);
}

extern "C" __global__ void sr_mix(const sr::Mix step) {
    for (int32_t row = blockIdx.y; row < step.height; row += gridDim.y)
        sr::mix_row(step, row, SR_FIRST, SR_STRIDE);
}
