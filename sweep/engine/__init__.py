"""Planning and running: executors, workers, limits, stops and progress."""
