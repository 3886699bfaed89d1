"""The fault drill: many flow runs, everything under them killed, and then every record compared."""
