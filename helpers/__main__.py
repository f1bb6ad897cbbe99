import os
import sys

# When the machine is busy, torch's threads that spin while waiting can make a step a hundred times slower. This must be
# set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from helpers.cli import main

if __name__ == "__main__":  # worker processes import this file again
    sys.exit(main())
