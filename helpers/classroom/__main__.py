import sys

from helpers.classroom.course import main

sys.exit(main())
