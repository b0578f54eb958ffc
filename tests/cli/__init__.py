"""The command line, with the demo as the services."""
