"""The checks of the exercises: each compares an answer with the right one on random inputs and names the mistake."""

from helpers.checks.lesson00 import *
from helpers.checks.lesson01 import *
from helpers.checks.lesson02 import *
from helpers.checks.lesson03 import *
from helpers.checks.lesson04 import *
from helpers.checks.lesson05 import *
from helpers.checks.lesson06 import *
from helpers.checks.lesson07 import *
from helpers.checks.lesson08 import *
