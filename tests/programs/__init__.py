"""Programs that tests run in processes of their own, and experiment files that they train."""
