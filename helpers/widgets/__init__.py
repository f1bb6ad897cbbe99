"""The temperature explorer, the live training, and the figures of the lessons."""

from helpers.widgets import figures as figures
from helpers.widgets.explorer import TemperatureExplorer as TemperatureExplorer
from helpers.widgets.live import LiveTraining as LiveTraining
