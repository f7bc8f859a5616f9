"""The shop that `durum demo` runs: written as a user would write it, shipped so that it runs."""
