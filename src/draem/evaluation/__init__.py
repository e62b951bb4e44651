"""How good a detector is: metrics, and a detector on a data set."""
