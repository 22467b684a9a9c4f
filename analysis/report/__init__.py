"""The report: a sweep as one page."""
