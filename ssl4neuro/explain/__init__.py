"""Where in the brain, the picture or the spectrum an answer comes from. Takes modules and arrays; knows nothing of runs or cohorts."""
