# The tasks of dev.py, for those who type make. On Windows: python dev.py TASK.
PYTHON ?= python3
BUNDLES ?= out/compact_x2.srd

.PHONY: demo test setup gpu-check

demo test setup:
	$(PYTHON) dev.py $@

# ARGS="--python /opt/trt/bin/python --minutes 10", for example; see benchmarks/gpu_check.
gpu-check:
	$(PYTHON) dev.py gpu-check $(BUNDLES) $(ARGS)
