"""Cohorts with known ground truth, written in the formats that real users have."""
