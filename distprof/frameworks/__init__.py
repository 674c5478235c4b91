"""What each training stack says of its groups, its parameters and its experts."""
