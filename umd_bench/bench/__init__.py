"""What the pieces cost in time: measurements that anyone can repeat with `umd-bench bench`, as ratios of one run."""
