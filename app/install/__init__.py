"""Installs Brushwork into a virtual environment, with the build of torch for this machine.

`make` runs it before anything is installed: it uses the standard library alone.
"""


class InstallError(Exception):
    """Brushwork cannot be installed; the message gives the reason and what to do."""
