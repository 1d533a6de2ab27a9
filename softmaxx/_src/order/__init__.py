"""Order: scores [n] → ranks [n] with a gradient."""
