"""The page: explore.html, in which the model of a run works."""
