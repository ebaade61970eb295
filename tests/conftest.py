"""One thread for torch: small models take 2 to 40 times the CPU time with more (OpenMP spins)."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of subprocesses too

import torch

torch.set_num_threads(1)
