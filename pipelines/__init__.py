"""Ray Data and vLLM: from a task to scored teacher data, and evaluation."""
