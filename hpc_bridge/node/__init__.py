"""What runs on the node. Importing it costs nothing: Prefect comes in only where a flow runs."""
