"""How well chunk scores predict what leaving chunks out does to the model's answer."""
