"""What every room stands on: types, dtypes, masks, sharding, sums, derivative rules, checks."""
