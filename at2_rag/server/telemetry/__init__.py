"""What an operator sees of the server: logs, metrics and traces, by default without any text."""
