"""From a store, complete or still filling, to thresholds with error bars, figures and a report."""
