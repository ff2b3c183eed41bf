"""CUDA: frames, tiles and buffers on NVIDIA GPUs. All of it goes through cuda-python.

`lane.CudaLane` is the lane of a backend that computes in GPU memory, `device_array.DeviceArray` the
public class of its results, and `driver` the only module that calls CUDA.

cuda-core does not replace `driver`: it has no pitched copies, does not launch a kernel with a
structure as its argument, and calls the driver from compiled code, so that no test without a GPU
could run it.
"""
