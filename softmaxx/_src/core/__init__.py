"""What every room stands on: types, dtypes, masks, sharding, sums, rules and checks."""
