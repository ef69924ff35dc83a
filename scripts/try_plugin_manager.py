"""Install a wheel as napari's plugin manager does, and open every widget that came with it.

Run in an environment that has napari, napari-plugin-manager and a screen, and not the plugin:

    python scripts/try_plugin_manager.py WHEEL
"""

import subprocess
import sys

PLUGIN = "napari-gitract"
# In a process of its own: what is installed while Python runs, this Python does not see.
OPEN_ALL = f"""
import napari, npe2
from qtpy.QtWidgets import QApplication

viewer = napari.Viewer()
manifest = npe2.PluginManager.instance().get_manifest({PLUGIN!r})
for widget in manifest.contributions.widgets:
    viewer.window.add_plugin_dock_widget({PLUGIN!r}, widget.display_name)
    QApplication.processEvents()
    print("opened", widget.display_name)
viewer.open_sample({PLUGIN!r}, manifest.contributions.sample_data[0].key)
assert len(viewer.layers) == 2, viewer.layers
viewer.close()
"""


def main(wheel: str) -> int:
    """Install, then open; the exit code says whether both went well."""
    from napari_plugin_manager.base_qt_package_installer import InstallerTools
    from napari_plugin_manager.qt_package_installer import NapariInstallerQueue
    from qtpy.QtWidgets import QApplication, QTextEdit

    app = QApplication([])
    log, codes = QTextEdit(), []
    queue = NapariInstallerQueue()
    queue.set_output_widget(log)
    queue.processFinished.connect(lambda ended: codes.append(ended["exit_code"]))
    queue.install(InstallerTools.PYPI, [wheel])
    queue.waitForFinished(30 * 60 * 1000)
    app.processEvents()
    if codes != [0]:
        print(log.toPlainText(), file=sys.stderr)
        return 1
    return subprocess.run([sys.executable, "-c", OPEN_ALL], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
