"""Search spaces: YAML → validated fields, fixed or searched."""
