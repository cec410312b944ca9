"""The front door: the command line, the workflow that runs the stages, and the report."""
