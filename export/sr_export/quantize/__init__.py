"""FP16, BF16 and INT8, each measured against FP32 before it is offered."""
