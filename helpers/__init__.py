"""The code behind the notebooks: each module is one idea of the course, and each notebook builds it by hand first."""

import os

# Beside another busy program, torch's threads that wait by spinning slow a training step a hundredfold. Waiting
# passively costs nothing that was measured. It counts only when it is set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
