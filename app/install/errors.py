"""The error of the installation."""

from __future__ import annotations


class InstallError(Exception):
    """Brushwork cannot be installed; the message gives the reason and what to do."""
