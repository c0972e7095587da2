"""What drives the runner for a purpose."""
