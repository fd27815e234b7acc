"""A run around an experiment: its folder, checkpoint, flags, progress and streams."""
