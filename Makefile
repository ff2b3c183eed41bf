# The tasks of dev.py, for those who type make. On Windows: python dev.py TASK.
PYTHON ?= python3
BUNDLES ?= out/compact_x2.srd

.PHONY: demo test lint docs minimal lowest setup gpu-check

demo test lint docs minimal lowest setup:
	$(PYTHON) dev.py $@ $(ARGS)

# For example ARGS="--python /opt/trt/bin/python --minutes 10"; see benchmarks/gpu_check.
gpu-check:
	$(PYTHON) dev.py gpu-check $(BUNDLES) $(ARGS)
