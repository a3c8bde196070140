"""What a rank's process does, a module for each way of running: the only part of the harness that imports torch."""
