"""The code behind the notebooks: each module is one idea of the course, and each notebook builds it by hand first."""

import ctypes
import os
import sys

# Beside another busy program, torch's threads that wait by spinning slow a training step a hundredfold. Waiting
# passively costs nothing that was measured. It counts only when it is set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Memory that a batch of images or its gradients took is kept for the next one. By default glibc gives large blocks back
# and asks for them anew, and the system clears every page again, which takes longer than computing what goes in.
if sys.platform == "linux":
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)  # other C libraries have none
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**29)
