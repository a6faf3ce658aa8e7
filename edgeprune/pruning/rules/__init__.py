"""What every operator does to channels: a label rule, and where its arguments hold sizes, a rewrite beside it."""
