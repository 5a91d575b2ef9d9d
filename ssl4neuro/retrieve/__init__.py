"""Search embeddings with faiss: `index.build_index` writes an index folder, `query.query` searches it."""
