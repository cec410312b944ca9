"""What every room shares: recipe, rows, run, ledger. Imports neither ray, torch nor vllm."""
