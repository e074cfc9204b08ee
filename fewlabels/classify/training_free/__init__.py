"""Classifiers on fixed features that train no network: one file each."""
