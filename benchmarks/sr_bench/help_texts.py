"""What `sr-bench --help` teaches."""

from __future__ import annotations

DESCRIPTION = """\
Measure a bundle: how fast it is beside PyTorch, how near that is to what the machine can do, and
how good its pictures are. Figures can be kept as records (JSON, with every sample and what it was
measured on); the tables and charts in the project's documents are made from records alone.

Without a COMMAND, speed is measured: `sr-bench x.srd` is `sr-bench speed x.srd`. "--compare" and
"--tune" stand for the commands, too."""

EXAMPLES = """\
examples:
  sr-bench x2.srd                             latency, throughput, memory, beside PyTorch
  sr-bench net_g.pth --html speed.html        the same of a checkpoint, exported first; as a page
  sr-bench quality x2.srd --ground-truth set5/HR --low-resolution set5/LRx2
  sr-bench --tune x2.srd                      find and keep what is fastest on this machine
  sr-bench --compare old.json new.json --fail-over 5%
  sr-bench report --check                     are the documents' tables those of the records?
"""

_SPEED = """\
Time per frame, side by side: every contender has a process of its own with the same number of
threads, is warmed up until steady, and then they take turns, round after round, so that a machine
that drifts hurts all alike. What is timed is frame in to frame out (height x width x channels,
8 bit), so that pre- and post-processing count for all. Ratios are taken within each round. Inputs
change with every call, and are more than a cache holds.

PyTorch's rows need the checkpoint: one that is named, or the file beside the bundle that it was
made from. As people run it (eager, FP32) it is the baseline; its strong forms are beside it."""

_SPEED_EXAMPLES = """\
--forms adds to frame in to frame out:
  network  the network alone: the backend called bare, PyTorch's module on ready tensors
  stream   frames that follow one another, overlapped (Engine.stream)
  video    a whole video, with decoding and encoding

examples:
  sr-bench x2.srd                             every backend and precision of this machine
  sr-bench x2.srd net.pth                     the same, saying which checkpoint is PyTorch's
  sr-bench a.srd b.srd --json both.json       several networks, one after the other, one record
  sr-bench x2.srd --backends openvino --precisions fp32 bf16 --sizes 1280x720
  sr-bench x2.srd --backends torch default    what Engine(bundle) is, beside PyTorch alone
  sr-bench x2.srd --forms network --backends openvino
      what Engine.upscale costs over its backend called bare
  sr-bench x2.srd --python torch=other/bin/python
      where PyTorch, or a backend, lives in another environment (with numpy and Pillow)
"""

_QUALITY = """\
PSNR, SSIM and MSE by the protocol of the field's tables: Y channel (and RGB), as many border pixels
left out as the scale. Nearest, bilinear and bicubic are the rows to beat. On Set5's official files,
bicubic gives the published figures (x2: 33.66 dB, 0.9299; x4: 28.42 dB, 0.8104) within 0.05 dB."""

_QUALITY_EXAMPLES = """\
examples:
  sr-bench quality x2.srd --ground-truth photos
      the low-resolution images are made: antialiased bicubic, as in MATLAB
  sr-bench quality x2.srd --ground-truth set5/HR --low-resolution set5/LRx2
      baby.png is compared with what becomes of baby.png or babyx2.png
  sr-bench quality x2.srd --ground-truth photos --precision fp32 fp16 int8 --html photos.html
      what each precision costs, against FP32 and against the ground truth; pictures side by side
"""

_TUNE = """\
Find the tile, the batch of tiles, and how many lanes of how many threads run a bundle fastest on
this machine, within the memory budget, and write them to the bundle's tuning record for this
device, which the engine then uses. A choice is only taken where it wins beyond noise."""

_TUNE_EXAMPLES = """\
examples:
  sr-bench --tune x2.srd                      most frames per second, for streams
  sr-bench --tune x2.srd --for latency        least time of one frame
  sr-bench tune x2.srd --size 1920x1080 --memory 2GiB --dry-run
"""

_COMPARE = """\
Say what changed from one record of speed to another, beyond noise: by a bootstrap over rounds,
between what the change lies in 95 of 100 runs. Where both records have the same baseline, times
are compared beside it, so that a slower day of the machine is no change."""

_MERGE = """\
Join records of speed: of several networks, machines, or interpreters. What was measured together
stays together; ratios are never taken across."""

_REPORT = """\
Make the tables and charts of README.md and docs/*.md from the records in benchmarks/results. A
document asks for what becomes of NAME.json with two lines:

  <!-- table:NAME -->            or table:NAME:overhead, what lies beside the network
  <!-- /table -->

  <!-- chart:NAME:KIND -->       KIND: faster, latency, throughput, quality or stages
  <!-- /chart -->"""

COMMANDS: dict[str, tuple[str, str, str | None]] = {
    "speed": ("time per frame, beside PyTorch (what is done without a COMMAND)", _SPEED,
              _SPEED_EXAMPLES),
    "quality": ("PSNR and SSIM", _QUALITY, _QUALITY_EXAMPLES),
    "tune": ("find what is fastest on this machine, and keep it", _TUNE, _TUNE_EXAMPLES),
    "compare": ("what changed from one record to another", _COMPARE, None),
    "merge": ("join records of speed", _MERGE, None),
    "show": ("a record as tables, or as a page", "Show a record again.", None),
    "report": ("make the documents' tables and charts", _REPORT, None),
}  # fmt: skip
