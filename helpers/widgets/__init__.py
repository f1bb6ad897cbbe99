"""The temperature explorer, the live training, and the figures of the lessons."""

from helpers.widgets import figures
from helpers.widgets.explorer import TemperatureExplorer
from helpers.widgets.live import LiveTraining
