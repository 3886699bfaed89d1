"""What ``hpc-bridge doctor`` examines: server, profile, cluster, a node, and a real run."""
