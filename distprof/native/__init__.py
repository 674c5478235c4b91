"""C code handles each module call and counts each choice of experts; without a compiler, Python does the same."""
