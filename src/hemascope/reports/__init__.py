"""What people look at: evaluations, figures and self-contained pages."""
