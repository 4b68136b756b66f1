"""Published data sets brought into the layout: ``import_dataset(kind, source, target)``."""

from semialign.data.importers.importing import Imported, import_dataset
from semialign.data.importers.registry import IMPORTERS

__all__ = ["IMPORTERS", "Imported", "import_dataset"]
