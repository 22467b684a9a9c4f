"""Where campaigns run: the machine at hand, a Slurm allocation, a Kubernetes cluster."""
