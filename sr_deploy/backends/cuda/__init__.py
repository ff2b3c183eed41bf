"""Everything that talks to CUDA: driver calls, device arrays, and frames computed on a GPU."""
