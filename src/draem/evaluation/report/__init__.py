"""The report: one offline page on a detector and a labelled data set."""
