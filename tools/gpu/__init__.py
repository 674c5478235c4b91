"""Checks what only a GPU can show; ``make gpu`` runs all parts and writes docs/GPU.md."""
