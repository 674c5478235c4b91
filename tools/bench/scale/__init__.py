"""What one more rank costs a merge: the factors of docs/SCALE.md."""
