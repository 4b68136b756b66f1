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
    "semigda": ("semigda", "SemiGDA", "pictures segmented by a frozen autoencoder's decoder (CVPR 2026)"),
}
