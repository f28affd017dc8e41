"""Bad and odd inputs for every public door, and what each of them leads to."""
