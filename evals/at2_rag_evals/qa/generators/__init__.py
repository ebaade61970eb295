"""What answers the questions: a `Generator` a file."""
