"""Who answers: transformers and its engines, the scripted backend, the built-in models."""
