"""Site profiles: what a cluster is, written by its admin, and what of it is each user's own."""
