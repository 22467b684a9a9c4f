"""Estimates with intervals: thresholds, collapse, edge scaling, drift, and verdicts on them."""
