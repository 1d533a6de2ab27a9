"""Order: choices that are ranks, scores [n] → mean ranks [n] with a gradient."""
