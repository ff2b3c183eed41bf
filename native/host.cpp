// The steps on the CPU, called through ctypes.

#include "pixels.h"

#ifdef _WIN32
#define SR_EXPORT extern "C" __declspec(dllexport)
#else
#define SR_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Sizes of the structures: Python rejects a library of another version.
SR_EXPORT int32_t sr_layout() {
    return sizeof(sr::Gather) + (sizeof(sr::Scatter) << 8) + (sizeof(sr::Mix) << 16);
}

SR_EXPORT void sr_gather(const sr::Gather *step) {
    for (int32_t row = 0; row < step->height; ++row) sr::gather_row(*step, row, 0, 1);
}

SR_EXPORT void sr_scatter(const sr::Scatter *step) {
    for (int32_t row = 0; row < step->height; ++row) sr::scatter_row(*step, row, 0, 1);
}

SR_EXPORT void sr_mix(const sr::Mix *step) {
    for (int32_t row = 0; row < step->height; ++row) sr::mix_row(*step, row, 0, 1);
}
