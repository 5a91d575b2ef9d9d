"""Where in the brain, the picture or the spectrum an answer comes from: modules and arrays in, maps out; no runs, no cohorts."""
