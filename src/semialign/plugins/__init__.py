"""Plug-ins by name: module, class and one line of what it is."""

PLUGINS: dict[str, tuple[str, str, str]] = {
    "scdl": ("scdl_plugin", "SCDLPlugin", "a learned distribution per class, for small structures (SCDL, CVPR 2026)"),
}
