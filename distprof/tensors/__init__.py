"""Helpers that know tensors only: those inside a call's values, and counts that no device is waited for."""
