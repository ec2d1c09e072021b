"""Image files → manifest → splits → cache → batches (tensor, class index)."""
