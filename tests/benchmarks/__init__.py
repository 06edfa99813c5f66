"""How fast batch-predict is beside the bare engine and beside what people usually write."""
