"""The kernels of this package, one file each."""
