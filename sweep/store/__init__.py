"""Where results lie: the Zarr hierarchy, its ledger, and writes that lose nothing."""
