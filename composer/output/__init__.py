"""What people and programs get to see: pure strings of plans, problems and results."""
