"""Looking after a store: uses, pins, pruning, verification, reasons of a rebuild, and tars between storages."""
