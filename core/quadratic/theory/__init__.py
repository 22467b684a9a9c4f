"""Theory at N = infinity: averages, bulk, outlier, thresholds, and the label-only method."""
