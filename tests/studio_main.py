"""The pages of the studio without its server, for NiceGUI's simulated user."""

from nicegui import ui

from zeuxis import runs_dir
from zeuxis.studio.pages import register
from zeuxis.studio.state import Studio

register(Studio(runs_dir()))
ui.run()
