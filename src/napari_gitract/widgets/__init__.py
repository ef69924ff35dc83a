"""The dock widgets: one module each. Opening one imports no torch; its first job does."""
