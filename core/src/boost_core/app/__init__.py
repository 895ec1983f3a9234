"""What users hold in their hands: the app, its tasks, and the jobs that a push returns."""
