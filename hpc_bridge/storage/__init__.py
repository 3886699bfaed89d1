"""Bundles and results on the cluster's file system."""
