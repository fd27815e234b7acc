"""A homework and what a run needs of it: its state, measures and more figures."""
