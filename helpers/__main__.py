import os
import sys

# Next to another busy program, threads of torch that wait by spinning slow a training step a hundredfold. This counts
# only before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from helpers.cli import main

if __name__ == "__main__":  # worker processes import this file again
    sys.exit(main())
