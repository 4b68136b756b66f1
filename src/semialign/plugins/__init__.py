"""Plug-ins by name: module, class and one line of what it is."""

PLUGINS: dict[str, tuple[str, str, str]] = {}
