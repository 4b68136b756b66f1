"""Methods by name: module, class and one line of what it is."""

METHODS: dict[str, tuple[str, str, str]] = {
    "supervised": ("supervised", "Supervised", "labels only: the floor that a method must beat, or the ceiling"),
    "mean-teacher": ("mean_teacher", "MeanTeacher", "agree with a moving average of yourself on unlabelled scans"),
    "ua-mt": ("ua_mt", "UncertaintyAwareMeanTeacher", "mean teacher, where the teacher is sure (MICCAI 2019)"),
    "cps": ("cps", "CrossPseudoSupervision", "two networks that label the unlabelled for each other (CVPR 2021)"),
    "ga-cps": (
        "ga_cps",
        "GradientAwareCrossPseudoSupervision",
        "cps with losses that rare classes count in (ECCV 2024)",
    ),
    "bcp": ("bcp", "CopyPaste", "labelled and unlabelled patches pasted into one another, in two stages (CVPR 2023)"),
    "magicnet": ("magicnet", "MagicNet", "cubes exchanged between scans, and where a cube lies (CVPR 2023)"),
    "ga-magicnet": (
        "ga_magicnet",
        "GradientAwareMagicNet",
        "magicnet with the losses of ga-cps (ECCV 2024)",
    ),
    "dhc": ("dhc", "DualDebiased", "cps with weights for rare classes and for hard ones (MICCAI 2023)"),
    "generic-ssl": ("generic_ssl", "GenericSSL", "a diffusion decoder and a debiased one teach a third (NeurIPS 2023)"),
    "semigda": ("semigda", "SemiGDA", "pictures segmented by a frozen autoencoder's decoder (CVPR 2026)"),
}
