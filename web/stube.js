// Replaced at merge.
