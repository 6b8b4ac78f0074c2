"""Run directories projected into MLflow: a copy for looking at, which can be thrown away and made again."""
