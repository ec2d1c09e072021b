"""The review pages: sign in, samples, galleries, fields, signing, reports."""
